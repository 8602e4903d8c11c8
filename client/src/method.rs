//! The methods that this client calls, each with its path and its messages.

use std::fmt;
use std::marker::PhantomData;

use larder_api::{accounts_v1, cache_v1, channelz_v1, talk};

/// A method whose requests are `Q` and whose replies are `R`.
pub(crate) struct Method<Q, R> {
    index: usize,
    path: &'static str,
    level: Level,
    messages: PhantomData<fn(Q) -> R>,
}

/// What the contract says of calling a method twice: its `idempotency_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// It only reads.
    NoSideEffects,
    /// Twice does what once does. One that carries a condition, or that makes something, is so
    /// only with a request id: without one a server refuses a repeat (`RETRY_UNSAFE`).
    Idempotent,
    /// Not marked: each time may have its effect.
    Unknown,
}

impl<Q, R> Method<Q, R> {
    const fn new(index: usize, path: &'static str, level: Level) -> Self {
        Self {
            index,
            path,
            level,
            messages: PhantomData,
        }
    }

    /// `/package.Service/Method`.
    pub(crate) const fn path(&self) -> &'static str {
        self.path
    }

    pub(crate) const fn level(&self) -> Level {
        self.level
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
    ($($name:ident: $request:ty => $reply:ty, $level:ident, $path:literal;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "named as the constants")]
        enum Index { $($name,)* }

        $(pub(crate) const $name: Method<$request, $reply> =
            Method::new(Index::$name as usize, $path, Level::$level);)*

        const PATHS: &[&str] = &[$($path,)*];

        #[cfg(test)]
        const LEVELS: &[Level] = &[$(Level::$level,)*];
    };
}

methods! {
    GET: cache_v1::GetRequest => cache_v1::GetResponse, NoSideEffects, "/larder.cache.v1.CacheService/Get";
    GET_AND_TOUCH: cache_v1::GetAndTouchRequest => cache_v1::GetAndTouchResponse, Idempotent, "/larder.cache.v1.CacheService/GetAndTouch";
    BATCH_GET: cache_v1::BatchGetRequest => cache_v1::BatchGetResponse, NoSideEffects, "/larder.cache.v1.CacheService/BatchGet";
    SET: cache_v1::SetRequest => cache_v1::SetResponse, Idempotent, "/larder.cache.v1.CacheService/Set";
    DELETE: cache_v1::DeleteRequest => cache_v1::DeleteResponse, Idempotent, "/larder.cache.v1.CacheService/Delete";
    BATCH_SET: cache_v1::BatchSetRequest => cache_v1::BatchSetResponse, Idempotent, "/larder.cache.v1.CacheService/BatchSet";
    BATCH_DELETE: cache_v1::BatchDeleteRequest => cache_v1::BatchDeleteResponse, Idempotent, "/larder.cache.v1.CacheService/BatchDelete";
    TOUCH: cache_v1::TouchRequest => cache_v1::TouchResponse, Idempotent, "/larder.cache.v1.CacheService/Touch";
    DELETE_PREFIX: cache_v1::DeletePrefixRequest => cache_v1::DeletePrefixResponse, Idempotent, "/larder.cache.v1.CacheService/DeletePrefix";
    INCREMENT: cache_v1::IncrementRequest => cache_v1::IncrementResponse, Unknown, "/larder.cache.v1.CacheService/Increment";
    LIST_KEYS: cache_v1::ListKeysRequest => cache_v1::ListKeysResponse, NoSideEffects, "/larder.cache.v1.CacheService/ListKeys";
    DUMP: cache_v1::DumpRequest => cache_v1::DumpResponse, NoSideEffects, "/larder.cache.v1.CacheService/Dump";
    LOAD: cache_v1::LoadRequest => cache_v1::LoadResponse, Idempotent, "/larder.cache.v1.CacheService/Load";
    GET_USAGE: cache_v1::GetUsageRequest => cache_v1::GetUsageResponse, NoSideEffects, "/larder.cache.v1.CacheService/GetUsage";
    GET_SERVER_INFO: cache_v1::GetServerInfoRequest => cache_v1::GetServerInfoResponse, NoSideEffects, "/larder.cache.v1.CacheService/GetServerInfo";
    CREATE_ACCOUNT: accounts_v1::CreateAccountRequest => accounts_v1::CreateAccountResponse, Idempotent, "/larder.accounts.v1.AccountService/CreateAccount";
    GET_ACCOUNT: accounts_v1::GetAccountRequest => accounts_v1::GetAccountResponse, NoSideEffects, "/larder.accounts.v1.AccountService/GetAccount";
    LIST_ACCOUNTS: accounts_v1::ListAccountsRequest => accounts_v1::ListAccountsResponse, NoSideEffects, "/larder.accounts.v1.AccountService/ListAccounts";
    UPDATE_ACCOUNT: accounts_v1::UpdateAccountRequest => accounts_v1::UpdateAccountResponse, Idempotent, "/larder.accounts.v1.AccountService/UpdateAccount";
    DELETE_ACCOUNT: accounts_v1::DeleteAccountRequest => accounts_v1::DeleteAccountResponse, Idempotent, "/larder.accounts.v1.AccountService/DeleteAccount";
    CREATE_TOKEN: accounts_v1::CreateTokenRequest => accounts_v1::CreateTokenResponse, Unknown, "/larder.accounts.v1.AccountService/CreateToken";
    LIST_TOKENS: accounts_v1::ListTokensRequest => accounts_v1::ListTokensResponse, NoSideEffects, "/larder.accounts.v1.AccountService/ListTokens";
    REVOKE_TOKEN: accounts_v1::RevokeTokenRequest => accounts_v1::RevokeTokenResponse, Idempotent, "/larder.accounts.v1.AccountService/RevokeToken";
    VERIFY_TOKEN: accounts_v1::VerifyTokenRequest => accounts_v1::VerifyTokenResponse, NoSideEffects, "/larder.accounts.v1.AccountService/VerifyToken";
    TALK_STORE: talk::StoreReq => talk::StoreResp, Unknown, "/rpc.Cache/Store";
    TALK_GET: talk::GetReq => talk::GetResp, NoSideEffects, "/rpc.Cache/Get";
    TALK_DUMP: talk::DumpReq => talk::DumpItem, NoSideEffects, "/rpc.Cache/Dump";
    GET_SERVERS: channelz_v1::GetServersRequest => channelz_v1::GetServersResponse, NoSideEffects, "/grpc.channelz.v1.Channelz/GetServers";
    GET_SERVER_SOCKETS: channelz_v1::GetServerSocketsRequest => channelz_v1::GetServerSocketsResponse, NoSideEffects, "/grpc.channelz.v1.Channelz/GetServerSockets";
    GET_SOCKET: channelz_v1::GetSocketRequest => channelz_v1::GetSocketResponse, NoSideEffects, "/grpc.channelz.v1.Channelz/GetSocket";
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
    use buffa::Message as _;
    use buffa_descriptor::generated::descriptor::method_options::IdempotencyLevel;
    use buffa_descriptor::generated::descriptor::{FileDescriptorSet, MethodDescriptorProto};

    use super::*;

    /// What is only read though the contract does not say so, and why.
    const READ_ALL_THE_SAME: &[&str] = &[
        // Marked IDEMPOTENT, so that no secret ever stands in a URL.
        "/larder.accounts.v1.AccountService/VerifyToken",
        // The talk's contract marks nothing, and is frozen.
        "/rpc.Cache/Get",
        "/rpc.Cache/Dump",
    ];

    /// What this client has no call for: it is no cache server's credential.
    const NOT_CALLED: &[&str] = &["/rpc.Accounts/GetByToken"];

    fn level_of(method: &MethodDescriptorProto) -> Level {
        let options = method.options.as_option();
        match options.and_then(|options| options.idempotency_level) {
            Some(IdempotencyLevel::NO_SIDE_EFFECTS) => Level::NoSideEffects,
            Some(IdempotencyLevel::IDEMPOTENT) => Level::Idempotent,
            _ => Level::Unknown,
        }
    }

    #[test]
    fn every_method_of_the_contract_is_repeated_as_the_contract_says() {
        let set = larder_api::FILE_DESCRIPTOR_SET;
        let set = FileDescriptorSet::decode_from_slice(set).unwrap();
        let mut seen = 0;
        for file in &set.file {
            let package = file.package.as_deref().unwrap_or_default();
            for service in &file.service {
                let service_name = service.name.as_deref().unwrap();
                for method in &service.method {
                    let name = method.name.as_deref().unwrap();
                    let path = format!("/{package}.{service_name}/{name}");
                    let Some(row) = PATHS.iter().position(|known| *known == path) else {
                        assert!(NOT_CALLED.contains(&&*path), "{path} is not called");
                        continue;
                    };
                    let expected = match READ_ALL_THE_SAME.contains(&&*path) {
                        true => Level::NoSideEffects,
                        false => level_of(method),
                    };
                    assert_eq!(LEVELS[row], expected, "{path}");
                    seen += 1;
                }
            }
        }
        // Those of the servers' operations are not part of the contract; all of them read.
        let of_operations = PATHS
            .iter()
            .zip(LEVELS)
            .filter(|(path, level)| path.starts_with("/grpc.") && **level == Level::NoSideEffects);
        assert_eq!(seen + of_operations.count(), PATHS.len());
    }

    #[test]
    fn every_method_knows_its_row() {
        assert_eq!(PATHS[LOAD.index], LOAD.path());
        assert_eq!(LEVELS[LOAD.index], LOAD.level());
        assert_eq!(PATHS[GET_SOCKET.index], GET_SOCKET.path());
    }
}
