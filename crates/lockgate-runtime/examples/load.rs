//! Measures a running worker: `load SOCKET PID CONNECTIONS SECONDS BODY_FILE [PATH]`
//!
//! Says requests per second, latency, and the CPU time of process PID for each request.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's result")]

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// CPU time of a process in microseconds, from the scheduler's own count.
fn cpu_micros(pid: &str) -> io::Result<u64> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanos / 1000)
}

/// Reads one answer with a Content-Length; an error where its status is not 200.
fn answer(io: &mut UnixStream, buffer: &mut [u8]) -> io::Result<()> {
    let broken = |what: String| io::Error::other(what);
    let mut filled = 0;
    loop {
        let count = io.read(buffer.get_mut(filled..).unwrap_or_default())?;
        if count == 0 {
            return Err(broken("the connection was closed, or the answer is larger than 1 MiB".to_owned()));
        }
        filled += count;
        let text = String::from_utf8_lossy(buffer.get(..filled).unwrap_or_default());
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        if !head.starts_with("HTTP/1.1 200") {
            return Err(broken(text.into_owned()));
        }
        let length =
            head.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|l| l.parse().ok());
        let length: usize = length.ok_or_else(|| broken("an answer without content-length".to_owned()))?;
        if filled >= head.len() + 4 + length {
            return Ok(());
        }
    }
}

fn drive(socket: &str, request: &[u8], until: Instant) -> io::Result<Vec<Duration>> {
    let mut io = UnixStream::connect(socket)?;
    let mut buffer = vec![0; 1 << 20];
    let mut took = Vec::with_capacity(1 << 20);
    while Instant::now() < until {
        let start = Instant::now();
        io.write_all(request)?;
        answer(&mut io, &mut buffer)?;
        took.push(start.elapsed());
    }
    Ok(took)
}

fn measure(words: &[String]) -> Result<String, String> {
    let [socket, pid, connections, seconds, body, path @ ..] = words else {
        return Err("usage: load SOCKET PID CONNECTIONS SECONDS BODY_FILE [PATH]".to_owned());
    };
    let number = |text: &String| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    let (connections, seconds) = (number(connections)?, number(seconds)?.clamp(1, 60));
    let body = std::fs::read(body).map_err(|e| e.to_string())?;
    let path = path.first().map_or("/v2/models/delay/infer", String::as_str);
    let kind = "content-type: application/json";
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: w\r\n{kind}\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(&body);
    let before = cpu_micros(pid).map_err(|e| e.to_string())?;
    let (start, length) = (Instant::now(), Duration::from_secs(seconds));
    let threads = (0..connections).map(|_| {
        let (socket, request) = (socket.clone(), request.clone());
        thread::spawn(move || drive(&socket, &request, start + length))
    });
    let mut took = Vec::new();
    for thread in threads.collect::<Vec<_>>() {
        took.extend(thread.join().map_err(|_| "a client panicked")?.map_err(|e| e.to_string())?);
    }
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = cpu_micros(pid).map_err(|e| e.to_string())?.saturating_sub(before);
    took.sort_unstable();
    let at =
        |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    let count = took.len();
    Ok(format!(
        "{connections} connections: {:.0} requests/s, p50 {:?}, p99 {:?}, {:.2} us of worker CPU a request ({count} requests)",
        count as f64 / elapsed,
        at(50),
        at(99),
        cpu as f64 / count.max(1) as f64
    ))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match measure(&words) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("load: {message}");
            ExitCode::FAILURE
        }
    }
}
