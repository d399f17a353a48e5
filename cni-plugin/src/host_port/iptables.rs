use crate::{
    config::Config,
    error::Error,
    host_port::claim::{Claim, Holder},
};
pub(super) fn add(_: &Config, _: &[Claim]) -> Result<(), Error> {
    Ok(())
}
pub(super) fn check(_: &[Claim]) -> Result<(), Error> {
    Ok(())
}
pub(super) fn status() -> Result<(), Error> {
    Ok(())
}
pub(super) fn remove(_: &Config, _: &dyn Fn(&Holder) -> bool) -> Result<Vec<Claim>, Error> {
    Ok(Vec::new())
}
