//! MLflow's scoring protocol: `/invocations`.
//!
//! A JSON body carries exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, and
//! optionally `params`; `text/csv` carries a header line and rows.

mod csv;
mod request;
mod response;

pub use request::Invocation;
pub use response::write_predictions;

/// The kinds of body that an invocation may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `text/csv`
    Csv,
}

impl ContentType {
    /// Reads a `Content-Type` header as MLflow does: two kinds, and no parameter but `charset=utf-8`.
    ///
    /// # Errors
    /// With status 415 where it is any other, or missing.
    pub fn parse(header: Option<&str>) -> Result<Self, crate::WireError> {
        let refuse = |what: String| {
            crate::WireError::unsupported(format!(
                "{what}; expected `Content-Type: application/json` or `text/csv`, with no parameter but charset=utf-8"
            ))
        };
        let text = header.ok_or_else(|| refuse("the request has no Content-Type".to_owned()))?;
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        if parts.any(|p| !p.is_empty() && !p.replace([' ', '"'], "").eq_ignore_ascii_case("charset=utf-8")) {
            return Err(refuse(format!(
                "the Content-Type `{}` has other parameters",
                crate::tensor::shown(text)
            )));
        }
        if kind.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else if kind.eq_ignore_ascii_case("text/csv") {
            Ok(Self::Csv)
        } else {
            Err(refuse(format!("the Content-Type is `{}`", crate::tensor::shown(text))))
        }
    }
}
