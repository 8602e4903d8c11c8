//! Lists in pages.

use larder_accounts::{Accounts, NewToken, PageRequest, TokenError};

use crate::fixture::{Fixture, account_name, all_tokens, create, token};

fn request(page_size: i32, page_token: &str) -> PageRequest<'_> {
    PageRequest {
        page_size,
        page_token,
    }
}

/// Walks both lists in pages of `page_size`, which must show everything once,
/// in order, in the least number of pages.
fn check_walk(accounts: &Accounts, page_size: i32, total: usize) {
    let acme = account_name("acme");
    let (mut names, mut ids) = (Vec::new(), Vec::new());
    let (mut account_token, mut token_token) = (String::new(), String::new());
    let size = usize::try_from(page_size).expect("it is positive");
    for _ in 0..total.div_ceil(size) {
        let page = accounts.list_accounts(request(page_size, &account_token));
        let page = page.expect("the request is good");
        names.extend(page.items.iter().map(|account| account.name.to_string()));
        account_token = page.next_page_token;
        let page = accounts.list_tokens(&acme, request(page_size, &token_token));
        let page = page.expect("the request is good");
        ids.extend(page.items.iter().map(|token| token.name.id().to_owned()));
        token_token = page.next_page_token;
    }
    assert_eq!((account_token.as_str(), token_token.as_str()), ("", ""));
    assert_eq!((names.len(), ids.len()), (total, total));
    assert!(names.is_sorted() && ids.is_sorted());
}

#[test]
fn every_page_size_shows_everything_once() {
    let fixture = Fixture::new(50);
    let accounts = fixture.open();
    create(&accounts, "acme");
    for n in 0..7 {
        create(&accounts, &format!("a{n}"));
    }
    // With `default`, that is 9 accounts.
    for _ in 0..9 {
        token(&accounts, "acme", NewToken::default());
    }
    for page_size in [1, 2, 3, 8, 9, 10, 1_000, i32::MAX] {
        check_walk(&accounts, page_size, 9);
    }
    assert_eq!(all_tokens(&accounts, &account_name("acme")).len(), 9);
}

#[test]
fn a_walk_goes_on_where_its_last_element_was() {
    let fixture = Fixture::new(51);
    let accounts = fixture.open();
    for name in ["a", "c", "e"] {
        create(&accounts, name);
    }
    let first = accounts.list_accounts(request(2, "")).expect("it is good");
    let c = account_name("c");
    accounts
        .delete_account(&c, larder_model::Mode::Apply)
        .expect("it is there");
    create(&accounts, "b");
    create(&accounts, "d");
    let second = accounts
        .list_accounts(request(2, &first.next_page_token))
        .expect("it is good");
    let names: Vec<_> = second.items.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["d", "default"]);
}

#[test]
fn a_bad_request_is_refused_by_field() {
    let fixture = Fixture::new(52);
    let accounts = fixture.open();
    create(&accounts, "acme");
    create(&accounts, "other");
    for account in ["acme", "other"] {
        for _ in 0..2 {
            token(&accounts, account, NewToken::default());
        }
    }
    let one = request(1, "");
    let of_accounts = accounts.list_accounts(one).expect("it is good");
    let of_tokens = accounts.list_tokens(&account_name("acme"), one);
    let of_tokens = of_tokens.expect("it is good");
    let huge = "A".repeat(100_000);
    let mut mangled = of_accounts.next_page_token.clone();
    mangled.replace_range(0..1, if mangled.starts_with('A') { "B" } else { "A" });
    let other = account_name("other");
    for bad in [
        "x",
        "====",
        "\u{7f}",
        "AAAA",
        &huge,
        &mangled,
        &of_tokens.next_page_token,
    ] {
        let request = request(1, bad);
        let error = accounts.list_accounts(request).expect_err("it is bad");
        assert_eq!(error.field, "page_token");
        let error = accounts.list_tokens(&other, request);
        assert!(
            matches!(&error, Err(TokenError::Field(error)) if error.field == "page_token"),
            "{error:?}"
        );
    }
    let negative = request(-1, "");
    let error = accounts.list_accounts(negative).expect_err("it is bad");
    assert_eq!(
        error.to_string(),
        "page_size must be 0, for 1000, or more; it is -1"
    );
    let absent = accounts.list_tokens(&account_name("absent"), one);
    assert!(matches!(absent, Err(TokenError::AccountNotFound)));
}
