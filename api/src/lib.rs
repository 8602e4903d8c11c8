//! api
#![allow(missing_docs)]
connectrpc::include_generated!();
