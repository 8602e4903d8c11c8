//! What the transport serves: the service on both lanes, and hyper for HTTP/1.1.

use std::future::Future;
use std::pin::{Pin, pin};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use larder_transport::rpc::Rpc;
use larder_transport::serve::{ConnectionInfo, Proof, Rewind, Serve, Socket};
use tokio::sync::watch;
use tower_service::Service as _;

use crate::protocols::Protocols;
use crate::typed::{Lane, Typed};

/// The service, for every connection.
pub(crate) struct Conformance {
    /// Which lane takes what both can.
    pub(crate) lane: Lane,
    /// The service on the general lane and on HTTP/1.1.
    pub(crate) protocols: Protocols,
}

impl Serve for Conformance {
    type Handler = Typed;
    type General = Protocols;

    fn connection(&self, _: &ConnectionInfo) -> Rpc<Typed, Protocols> {
        Rpc::new(Typed(self.lane), self.protocols.clone())
    }

    fn http1(
        &self,
        io: Rewind<Socket>,
        _: ConnectionInfo,
        proof: Proof,
        mut drain: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let protocols = self.protocols.clone();
        let service = service_fn(move |request| {
            proof.proven();
            protocols.clone().call(request)
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        Box::pin(async move {
            let mut connection = pin!(connection);
            let drained = async {
                // Its sender gone: nobody waits for the connection any more.
                let _ = drain.wait_for(|drain| *drain).await.is_ok();
            };
            // An error is the client's: the suite sees what became of its call.
            let _ = tokio::select! {
                ended = connection.as_mut() => ended,
                () = drained => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
        })
    }
}
