//! Where a server keeps its data if nobody says otherwise, and where the
//! client commands look for the token of the server on this machine.

use std::ffi::OsString;
use std::path::PathBuf;

/// Name of the file with the administrator's token, in the data directory.
pub(crate) const ADMIN_TOKEN_FILE: &str = "admin-token";

/// The platform's directory for a user's data, and `larder` in it; `None` if
/// the environment names neither it nor a home.
pub(crate) fn default_data_dir() -> Option<PathBuf> {
    resolve(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
}

/// By the XDG Base Directory Specification: `XDG_DATA_HOME` if it is an
/// absolute path, else `~/.local/share`.
fn resolve(data_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    data_home
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| {
            home.filter(|home| !home.is_empty())
                .map(|home| PathBuf::from(home).join(".local/share"))
        })
        .map(|path| path.join("larder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_xdg_specification() {
        for (data_home, home, expected) in [
            (Some("/data"), Some("/home/g"), Some("/data/larder")),
            (
                Some("relative"),
                Some("/home/g"),
                Some("/home/g/.local/share/larder"),
            ),
            (
                Some(""),
                Some("/home/g"),
                Some("/home/g/.local/share/larder"),
            ),
            (None, Some("/home/g"), Some("/home/g/.local/share/larder")),
            (None, Some(""), None),
            (None, None, None),
        ] {
            let found = resolve(data_home.map(Into::into), home.map(Into::into));
            assert_eq!(found, expected.map(PathBuf::from), "{data_home:?} {home:?}");
        }
    }
}
