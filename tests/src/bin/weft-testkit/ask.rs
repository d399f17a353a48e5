//! `ask`: requests as they are told on standard input, all at once.

use std::{io, thread};

use anyhow::{Context, Result};
use clap::{Args, Parser};
use weft_tests::Asked;

use crate::request::Request;

/// Make requests as told on standard input, one line each: a number, then the arguments of `request`.
#[derive(Args)]
pub(crate) struct Ask {}

/// What `request` takes.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    request: Request,
}

impl Ask {
    pub(crate) fn run(self) -> Result<()> {
        crate::say_ready();
        for line in io::stdin().lines() {
            let line = line.context("read a line")?;
            let (id, words) = line.split_once(' ').with_context(|| format!("no number in {line:?}"))?;
            let id = id.parse().with_context(|| format!("number {id:?}"))?;
            let Line { request } = Line::try_parse_from(words.split(' '))?;
            // One thread each: a request that is dropped waits for its time-out, and nobody waits for it.
            thread::spawn(move || {
                let _ = crate::report(&Asked { id, answers: request.answers() });
            });
        }
        Ok(())
    }
}
