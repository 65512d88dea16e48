"""Session URLs as people write them: hosts in any script, paths percent-coded or not, zones, trailing dots."""

from __future__ import annotations

import pytest

from moqt_trio.url import SessionUrl, canonical_path, printable_url


@pytest.mark.parametrize(
    ("written", "host", "authority", "server_name"),
    [
        ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example:443", "xn--bcher-kva.example"),
        ("BÜCHER.Example", "xn--bcher-kva.example", "xn--bcher-kva.example:443", "xn--bcher-kva.example"),
        ("b%C3%BCcher.example", "xn--bcher-kva.example", "xn--bcher-kva.example:443", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example:443", "xn--bcher-kva.example"),
        ("日本。example", "xn--wgv71a.example", "xn--wgv71a.example:443", "xn--wgv71a.example"),
        ("faß.example", "xn--fa-hia.example", "xn--fa-hia.example:443", "xn--fa-hia.example"),
        ("media.example.", "media.example.", "media.example.:443", "media.example"),
        ("a_b.example", "a_b.example", "a_b.example:443", "a_b.example"),
        ("[fe80::1%25eth0]", "fe80::1%eth0", "[fe80::1]:443", "fe80::1"),
        ("[fe80::1%eth0]", "fe80::1%eth0", "[fe80::1]:443", "fe80::1"),
        ("[::1]", "::1", "[::1]:443", "::1"),
    ],
)
@pytest.mark.parametrize("scheme", ["https", "moqt"])
def test_hosts(scheme, written, host, authority, server_name):
    """A name becomes ASCII; the authority has no zone, and the name in the certificate no trailing dot."""
    where = SessionUrl.parse(f"{scheme}://{written}/")
    assert (where.host, where.authority, where.server_name) == (host, authority, server_name)


@pytest.mark.parametrize(
    "host", ["my host", "a%2Fb", "a%00b", "a%20b", "xn\u2028y", "\u200d.example", "-ü-.example", "%FF"]
)
def test_no_host(host):
    """What cannot be a host is a ValueError that says so, not an error from deep inside."""
    with pytest.raises(ValueError, match="is no host name"):
        SessionUrl.parse(f"https://{host}/")


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("", "/"),
        ("/", "/"),
        ("?token=1", "/?token=1"),
        ("/räume", "/r%C3%A4ume"),
        ("/r%C3%A4ume", "/r%C3%A4ume"),
        ("/my room", "/my%20room"),
        ("/my%20room", "/my%20room"),
        ("/a%2Fb", "/a%2Fb"),
        ("/100%", "/100%25"),
        ("/a;b=c,d@e:f", "/a;b=c,d@e:f"),
        ("/x?q=ä b&r=%C3%A4/?", "/x?q=%C3%A4%20b&r=%C3%A4/?"),
    ],
)
@pytest.mark.parametrize("scheme", ["https", "moqt"])
def test_paths(scheme, written, path):
    """What a URL cannot carry is percent-coded, alike for both transports; what is coded already stays as it is."""
    assert SessionUrl.parse(f"{scheme}://localhost{written}").path == path


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/my room", "/my%20room"),
        ("/my%20room", "/my%20room"),
        ("/%72oom", "/%72oom"),
        ("/r%c3%a4ume", "/r%C3%A4ume"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%252Fb", "/a%252Fb"),
        ("/%FF", "/%FF"),
        ("/100%", "/100%25"),
        ("/a:b", "/a:b"),
        ("/a%3Ab", "/a%3Ab"),
    ],
)
def test_canonical_paths(path, canonical):
    """Equal paths have one form, to which making it again changes nothing."""
    assert canonical_path(path) == canonical
    assert canonical_path(canonical) == canonical


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a/b?c=d?e", "https://a/b?..."),
        ("https://a/b?c=d#e", "https://a/b?..."),
        ("https://a/b#c?d", "https://a/b#..."),
        ("https://a/b?", "https://a/b?..."),
        ("https://a/b", "https://a/b"),
        ("https://a/@b", "https://a/@b"),
        ("https://me:secret@a/b", "https://...@a/b"),
        ("https://me@secret@a?b@c", "https://...@a?..."),
        ("https://a?b=://c@secret", "https://a?..."),
        ("/b?c\r\nd", "/b?..."),
        ("https://a/\r\nX: y", "https://a/\\r\\nX: y"),
        ("https://a/" + "b" * 300, "https://a/" + "b" * 245 + "~"),
    ],
)
def test_printable_url(url, shown):
    """A logged URL is one short line, and has neither a user nor a query nor a fragment."""
    assert printable_url(url) == shown


SECRET = "5ecret"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/?token=5ecret",
        "a?token=5ecret",
        "https:///?token=5ecret",
        "https://[::1/?token=5ecret",
        "https://a:x/?token=5ecret",
        "https://a:0/?token=5ecret",
        "https://a b/?token=5ecret",
        "https://a/?b#5ecret",
        "https://a/#5ecret",
        "https://me:5ecret@a/",
        "https://5ecret@a/",
        "https://5ecret@a\u2100b/",
        "https://5ecret@[::1/",
        "https://a:x\x1b[31m\u202e/?token=5ecret",
    ],
)
def test_no_credentials_in_errors(url):
    """What is wrong with a URL is said without what may be a credential in it, on one line."""
    with pytest.raises(ValueError, match="URL") as caught:
        SessionUrl.parse(url)
    shown = str(caught.value)
    assert SECRET not in shown
    assert shown.isascii()
    assert shown.isprintable()


def test_no_credentials_in_a_repr():
    """A parsed URL shows no query."""
    where = SessionUrl.parse("https://a/b?token=5ecret")
    assert where.path == "/b?token=5ecret"
    assert SECRET not in repr(where)
    assert "/b?..." in repr(where)
