//! Removal that does not stop at the first failure.

use crate::error::Error;

/// Collects what went wrong; the first failure counts, the others are told along with it.
#[derive(Debug, Default)]
pub(crate) struct Teardown {
    failure: Option<Error>,
}

impl Teardown {
    /// Takes note of how a step went.
    pub(crate) fn step(&mut self, result: Result<(), impl Into<Error>>) {
        let Err(error) = result else { return };
        let error = error.into();
        match &mut self.failure {
            None => self.failure = Some(error),
            Some(first) if first.details.is_empty() => first.details = format!("also: {error}"),
            Some(first) => first.details = format!("{}; also: {error}", first.details),
        }
    }

    /// How it all went.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.failure.map_or(Ok(()), Err)
    }

    /// For a roll-back, whose cause is worth more than what goes wrong in it; DEL will try again.
    pub(crate) fn finish_quietly(self) {
        if let Some(failure) = self.failure {
            eprintln!("weft-cni: undoing a failed ADD: {failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn d3_the_first_failure_counts_and_the_others_are_told() {
        let mut teardown = Teardown::default();
        teardown.step(Ok::<(), Error>(()));
        teardown.step(Err(Error::new(Code::Ipam, "one")));
        teardown.step(Err(Error::new(Code::Io, "two")));
        teardown.step(Err(Error::new(Code::Io, "three")));
        let error = teardown.finish().unwrap_err();
        assert_eq!((error.code, error.to_string().as_str()), (Code::Ipam, "one: also: two; also: three"));
        assert_eq!(Teardown::default().finish(), Ok(()));
    }
}
