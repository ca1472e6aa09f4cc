//! Handing a listening socket to another process, over a Unix socket that both have (`SCM_RIGHTS`, unix(7)).

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;

/// The form of this hand-over. What a later version may add must not be taken for this one.
const FORM: u8 = 1;

/// Sends a listening socket. The receiver gets a descriptor of its own for the same queue of connections.
///
/// # Errors
/// Where the other end is gone.
pub fn send(over: impl AsFd, listener: &TcpListener) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Error::new(ErrorKind::InvalidInput, "there is no room for a descriptor"));
    }
    sendmsg(over, &[IoSlice::new(&[FORM])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a listening socket.
///
/// # Errors
/// Where the other end is gone, or sends something else.
pub fn receive(over: impl AsFd) -> Result<TcpListener> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut form = [0];
    let got = recvmsg(over, &mut [IoSliceMut::new(&mut form)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match received {
        Some(descriptor) if form == [FORM] => Ok(TcpListener::from(descriptor)),
        _ => Err(Error::new(
            ErrorKind::InvalidData,
            "this is no hand-over of a listening socket that is known here",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    #[test]
    fn connections_that_wait_go_to_whoever_has_the_socket() {
        let (here, there) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        send(&here, &listener).unwrap();
        drop(listener);
        let received = receive(&there).unwrap();
        let (mut served, _) = received.accept().unwrap();
        let mut byte = [0];
        served.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn an_end_and_other_messages_are_no_hand_over() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[FORM]).unwrap();
        assert_eq!(receive(&there).unwrap_err().kind(), ErrorKind::InvalidData);
        here.write_all(&[7]).unwrap();
        assert_eq!(receive(&there).unwrap_err().kind(), ErrorKind::InvalidData);
        drop(here);
        assert_eq!(receive(&there).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
