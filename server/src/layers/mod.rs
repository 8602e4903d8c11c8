//! What stands around every call, whichever way it came: the talk's tap and
//! interceptors, as two plain functions and a watch between them.
//!
//! `origin` (is this browser to be believed?) → [`admit`](admit::admit) → the
//! handler, within its deadline ([`within`](within::within)) →
//! [`finish`](finish::finish).

pub(crate) mod admit;
pub(crate) mod attempt;
pub(crate) mod finish;
pub(crate) mod offer;
pub(crate) mod origin;
pub(crate) mod shed;
pub(crate) mod strict;
pub(crate) mod tap;
pub(crate) mod within;
