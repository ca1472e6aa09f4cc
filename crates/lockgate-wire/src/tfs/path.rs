//! The paths of a model.

use crate::oip::decode;
use crate::tensor::shown;
use std::borrow::Cow;

/// What a path of a model asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TfsVerb {
    /// Which versions serve.
    Status,
    /// What the model takes and gives.
    Metadata,
    /// A prediction.
    Predict,
    /// Classes with their scores.
    Classify,
    /// One number for each example.
    Regress,
}

/// Which version a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick<'a> {
    /// Whatever serves.
    Any,
    /// A version by its number.
    Version(u64),
    /// A version by its label.
    Label(Cow<'a, str>),
}

/// `/v1/models/{model}[/versions/{n}|/labels/{label}][/metadata|:predict|:classify|:regress]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TfsPath<'a> {
    /// The model's name, percent-decoded.
    pub model: Cow<'a, str>,
    /// The version.
    pub pick: Pick<'a>,
    /// What is asked.
    pub verb: TfsVerb,
}

impl<'a> TfsPath<'a> {
    /// Where all these paths begin.
    pub const PREFIX: &'static str = "/v1/models/";

    /// Reads a path. The fixed words may be written in any case.
    ///
    /// # Errors
    /// A sentence, where the path is none of these.
    pub fn parse(path: &'a str) -> Result<Self, String> {
        let nothing = || format!("there is nothing at `{}`", shown(path));
        let (start, rest) = path.split_at_checked(Self::PREFIX.len()).ok_or_else(nothing)?;
        if !start.eq_ignore_ascii_case(Self::PREFIX) {
            return Err(nothing());
        }
        let (place, mut verb) = match rest.rsplit_once(':') {
            None => (rest, TfsVerb::Status),
            Some((place, word)) => (place, action(word).ok_or_else(nothing)?),
        };
        let is = |part: &str, word: &str| part.eq_ignore_ascii_case(word);
        let mut parts: Vec<&str> = place.split('/').collect();
        if verb == TfsVerb::Status && parts.len() > 1 && parts.last().is_some_and(|last| is(last, "metadata"))
        {
            parts.pop();
            verb = TfsVerb::Metadata;
        }
        let (model, pick) = match parts.as_slice() {
            [model] => (model, Pick::Any),
            [model, word, number] if is(word, "versions") => {
                let unknown =
                    || format!("`{}` is no model version; versions are whole numbers", shown(number));
                (model, Pick::Version(number.parse().map_err(|_| unknown())?))
            }
            [model, word, label] if is(word, "labels") => {
                (model, Pick::Label(decode(label).filter(|label| !label.is_empty()).ok_or_else(nothing)?))
            }
            _ => return Err(nothing()),
        };
        let model = decode(model).filter(|model| !model.is_empty()).ok_or_else(nothing)?;
        Ok(Self { model, pick, verb })
    }
}

fn action(word: &str) -> Option<TfsVerb> {
    let known =
        [("predict", TfsVerb::Predict), ("classify", TfsVerb::Classify), ("regress", TfsVerb::Regress)];
    known.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, verb)| verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_model_version_and_verb() {
        for (path, model, pick, verb) in [
            ("/v1/models/m:predict", "m", Pick::Any, TfsVerb::Predict),
            ("/V1/Models/a%20b/Versions/7:Classify", "a b", Pick::Version(7), TfsVerb::Classify),
            ("/v1/models/m/labels/prod:regress", "m", Pick::Label("prod".into()), TfsVerb::Regress),
            ("/v1/models/m", "m", Pick::Any, TfsVerb::Status),
            ("/v1/models/m/versions/3", "m", Pick::Version(3), TfsVerb::Status),
            ("/v1/models/m/metadata", "m", Pick::Any, TfsVerb::Metadata),
            ("/v1/models/m/versions/3/metadata", "m", Pick::Version(3), TfsVerb::Metadata),
            ("/v1/models/metadata", "metadata", Pick::Any, TfsVerb::Status),
        ] {
            assert_eq!(TfsPath::parse(path), Ok(TfsPath { model: model.into(), pick, verb }), "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for (path, why) in [
            ("/v1/model/m", "nothing at"),
            ("/v1/models/", "nothing at"),
            ("/v1/models/m:explain", "nothing at"),
            ("/v1/models/m/versions/x:predict", "whole numbers"),
            ("/v1/models/m/versions/99999999999999999999", "whole numbers"),
            ("/v1/models/m/labels/:predict", "nothing at"),
            ("/v1/models/%zz:predict", "nothing at"),
            ("/v1/models/m/metadata:predict", "nothing at"),
            ("/v1/models/m/x/y/z", "nothing at"),
            ("/v1/mödels/m", "nothing at"),
        ] {
            assert!(TfsPath::parse(path).unwrap_err().contains(why), "{path}");
        }
    }
}
