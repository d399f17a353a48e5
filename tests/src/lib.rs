//! Netns clusters on one machine.
