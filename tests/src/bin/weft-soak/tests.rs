//! That the soak would see what is wrong.
