//! The methods that this client calls, each with its path and its messages.

use std::fmt;
use std::marker::PhantomData;

use larder_api::{accounts_v1, cache_v1, channelz_v1, talk};

/// A method whose requests are `Q` and whose replies are `R`.
pub(crate) struct Method<Q, R> {
    index: usize,
    path: &'static str,
    messages: PhantomData<fn(Q) -> R>,
}

impl<Q, R> Method<Q, R> {
    const fn new(index: usize, path: &'static str) -> Self {
        Self {
            index,
            path,
            messages: PhantomData,
        }
    }

    /// `/package.Service/Method`.
    pub(crate) const fn path(&self) -> &'static str {
        self.path
    }
}

impl<Q, R> Clone for Method<Q, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, R> Copy for Method<Q, R> {}

impl<Q, R> fmt::Debug for Method<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)
    }
}

macro_rules! methods {
    ($($name:ident: $request:ty => $reply:ty, $path:literal;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the constants")]
        enum Index { $($name,)* }

        $(pub(crate) const $name: Method<$request, $reply> =
            Method::new(Index::$name as usize, $path);)*

        const PATHS: &[&str] = &[$($path,)*];
    };
}

methods! {
    GET: cache_v1::GetRequest => cache_v1::GetResponse, "/larder.cache.v1.CacheService/Get";
    GET_AND_TOUCH: cache_v1::GetAndTouchRequest => cache_v1::GetAndTouchResponse, "/larder.cache.v1.CacheService/GetAndTouch";
    BATCH_GET: cache_v1::BatchGetRequest => cache_v1::BatchGetResponse, "/larder.cache.v1.CacheService/BatchGet";
    SET: cache_v1::SetRequest => cache_v1::SetResponse, "/larder.cache.v1.CacheService/Set";
    DELETE: cache_v1::DeleteRequest => cache_v1::DeleteResponse, "/larder.cache.v1.CacheService/Delete";
    BATCH_SET: cache_v1::BatchSetRequest => cache_v1::BatchSetResponse, "/larder.cache.v1.CacheService/BatchSet";
    BATCH_DELETE: cache_v1::BatchDeleteRequest => cache_v1::BatchDeleteResponse, "/larder.cache.v1.CacheService/BatchDelete";
    TOUCH: cache_v1::TouchRequest => cache_v1::TouchResponse, "/larder.cache.v1.CacheService/Touch";
    DELETE_PREFIX: cache_v1::DeletePrefixRequest => cache_v1::DeletePrefixResponse, "/larder.cache.v1.CacheService/DeletePrefix";
    INCREMENT: cache_v1::IncrementRequest => cache_v1::IncrementResponse, "/larder.cache.v1.CacheService/Increment";
    LIST_KEYS: cache_v1::ListKeysRequest => cache_v1::ListKeysResponse, "/larder.cache.v1.CacheService/ListKeys";
    DUMP: cache_v1::DumpRequest => cache_v1::DumpResponse, "/larder.cache.v1.CacheService/Dump";
    LOAD: cache_v1::LoadRequest => cache_v1::LoadResponse, "/larder.cache.v1.CacheService/Load";
    GET_USAGE: cache_v1::GetUsageRequest => cache_v1::GetUsageResponse, "/larder.cache.v1.CacheService/GetUsage";
    GET_SERVER_INFO: cache_v1::GetServerInfoRequest => cache_v1::GetServerInfoResponse, "/larder.cache.v1.CacheService/GetServerInfo";
    CREATE_ACCOUNT: accounts_v1::CreateAccountRequest => accounts_v1::CreateAccountResponse, "/larder.accounts.v1.AccountService/CreateAccount";
    GET_ACCOUNT: accounts_v1::GetAccountRequest => accounts_v1::GetAccountResponse, "/larder.accounts.v1.AccountService/GetAccount";
    LIST_ACCOUNTS: accounts_v1::ListAccountsRequest => accounts_v1::ListAccountsResponse, "/larder.accounts.v1.AccountService/ListAccounts";
    UPDATE_ACCOUNT: accounts_v1::UpdateAccountRequest => accounts_v1::UpdateAccountResponse, "/larder.accounts.v1.AccountService/UpdateAccount";
    DELETE_ACCOUNT: accounts_v1::DeleteAccountRequest => accounts_v1::DeleteAccountResponse, "/larder.accounts.v1.AccountService/DeleteAccount";
    CREATE_TOKEN: accounts_v1::CreateTokenRequest => accounts_v1::CreateTokenResponse, "/larder.accounts.v1.AccountService/CreateToken";
    LIST_TOKENS: accounts_v1::ListTokensRequest => accounts_v1::ListTokensResponse, "/larder.accounts.v1.AccountService/ListTokens";
    REVOKE_TOKEN: accounts_v1::RevokeTokenRequest => accounts_v1::RevokeTokenResponse, "/larder.accounts.v1.AccountService/RevokeToken";
    VERIFY_TOKEN: accounts_v1::VerifyTokenRequest => accounts_v1::VerifyTokenResponse, "/larder.accounts.v1.AccountService/VerifyToken";
    TALK_STORE: talk::StoreReq => talk::StoreResp, "/rpc.Cache/Store";
    TALK_GET: talk::GetReq => talk::GetResp, "/rpc.Cache/Get";
    TALK_DUMP: talk::DumpReq => talk::DumpItem, "/rpc.Cache/Dump";
    GET_SERVERS: channelz_v1::GetServersRequest => channelz_v1::GetServersResponse, "/grpc.channelz.v1.Channelz/GetServers";
    GET_SERVER_SOCKETS: channelz_v1::GetServerSocketsRequest => channelz_v1::GetServerSocketsResponse, "/grpc.channelz.v1.Channelz/GetServerSockets";
    GET_SOCKET: channelz_v1::GetSocketRequest => channelz_v1::GetSocketResponse, "/grpc.channelz.v1.Channelz/GetSocket";
}

/// Something for each method, made once.
#[derive(Debug)]
pub(crate) struct PerMethod<T>(Vec<T>);

impl<T> PerMethod<T> {
    /// `make` makes that of a path.
    pub(crate) fn new<E>(make: impl Fn(&'static str) -> Result<T, E>) -> Result<Self, E> {
        let all = PATHS.iter().map(|path| make(path));
        all.collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn of<Q, R>(&self, method: Method<Q, R>) -> &T {
        // There is one for each.
        &self.0[method.index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_one_of_the_contract() {
        for path in PATHS {
            let (service, method) = path[1..].split_once('/').unwrap();
            let name = service.rsplit('.').next().unwrap();
            // That of the servers' operations is not part of the contract.
            if name != "Channelz" {
                let set = larder_api::FILE_DESCRIPTOR_SET;
                for text in [name, method] {
                    let is_there = set.windows(text.len()).any(|it| it == text.as_bytes());
                    assert!(is_there, "{path}");
                }
            }
        }
        assert_eq!(PATHS[LOAD.index], LOAD.path());
        assert_eq!(PATHS[GET_SOCKET.index], GET_SOCKET.path());
    }
}
