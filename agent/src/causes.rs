//! An error with what it came from, in one line.

use std::error::Error;

/// The error and its causes. Some errors say already what the next one says: that is not said twice.
pub(crate) fn explained(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("write it: {source}")]
    struct SaysItsCause {
        source: io::Error,
    }

    #[test]
    fn no_cause_is_said_twice_and_none_is_left_out() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let plain = Err::<(), _>(denied()).context("the file").context("the start").unwrap_err();
        assert_eq!(explained(plain.as_ref()), "the start: the file: permission denied");
        let says = SaysItsCause { source: denied() };
        assert_eq!(explained(&says), "write it: permission denied");
        let outer = Err::<(), _>(says).context("the start").unwrap_err();
        assert_eq!(explained(outer.as_ref()), "the start: write it: permission denied");
    }
}
