"""Where a GOAWAY may lead: the policy alone, without a session, a socket or a clock."""

from __future__ import annotations

import attrs
import pytest

import moqt_trio as moqt
from moqt_trio.client.redirect import (
    Candidate,
    Redirect,
    RedirectChain,
    allow_same_authority,
    kind_of,
    parse_uri,
)

HOME = "https://relay.example/live?jwt=secret"
TOKEN = "secret"


def anywhere(redirect: Redirect) -> bool:
    return True


def follow(uri, *, home=HOME, policy=anywhere, sender="198.51.100.7") -> Candidate:
    """Where the first GOAWAY of a session at `home` leads."""
    return RedirectChain(home, policy=policy).follow(Candidate(home), uri, sender=sender)


class TestMeaning:
    def test_empty_is_the_same_again(self):
        """An empty URI is the same URL, its query included, and no policy is asked (IETF draft-14, section 9.4)."""
        asked = []
        assert follow("", policy=asked.append) == Candidate(HOME)
        assert asked == []

    @pytest.mark.parametrize("uri", ["/other", "other", "//relay.example/other", "?jwt=x", "relay.example:443"])
    def test_relative_references_are_refused(self, uri):
        """A GOAWAY carries a URI (moq-lite-06, section 7.18), and a URI has a scheme (RFC 3986, section 3)."""
        with pytest.raises(moqt.RedirectRefused, match=r"does not begin with https:// .* or moqt://"):
            follow(uri)

    @pytest.mark.parametrize(
        ("uri", "url"),
        [
            ("https://relay.example/other", "https://relay.example/other?jwt=secret"),
            ("https://RELAY.example:443/other", "https://RELAY.example:443/other?jwt=secret"),
            ("https://relay.example/other?jwt=new", "https://relay.example/other?jwt=new"),
            ("https://relay.example/other?", "https://relay.example/other?"),
        ],
    )
    def test_the_query_stays_within_an_authority(self, uri, url):
        """On the same authority the query goes along, unless the URI has one of its own, be it empty."""
        assert follow(uri, policy=allow_same_authority) == Candidate(url)

    @pytest.mark.parametrize(
        "uri",
        [
            "https://other.example/live",
            "https://relay.example:444/live",
            "moqt://relay.example/live",
            "https://relay.example./live",
        ],
    )
    def test_the_query_does_not_leave_it(self, uri):
        """Another host, port or scheme is another authority: no query is sent there, and it counts as foreign."""
        target = follow(uri)
        assert target == Candidate(uri, foreign=True, sender="198.51.100.7")
        assert TOKEN not in target.url
        carries = follow(uri + "?jwt=theirs")
        assert carries.url == uri + "?jwt=theirs"

    def test_moving_on_within_a_foreign_authority(self):
        """A path that changes on a foreign authority leaves it foreign."""
        redirects = RedirectChain(HOME, policy=anywhere)
        there = redirects.follow(Candidate(HOME), "https://other.example/a?t=1", sender="198.51.100.7")
        further = redirects.follow(there, "https://other.example/b", sender="203.0.113.9")
        assert further == Candidate("https://other.example/b?t=1", foreign=True, sender="198.51.100.7")

    def test_coming_home(self):
        """A redirect back to the authority that the caller named is not foreign, and gets no query from elsewhere."""
        redirects = RedirectChain(HOME, policy=anywhere)
        there = redirects.follow(Candidate(HOME), "https://other.example/a?t=1", sender="198.51.100.7")
        assert redirects.follow(there, "https://relay.example/live", sender="203.0.113.9") == Candidate(
            "https://relay.example/live"
        )


class TestPolicy:
    @pytest.mark.parametrize(
        ("uri", "allowed"),
        [
            ("https://relay.example/other", True),
            ("https://relay.example:443/", True),
            ("HTTPS://Relay.Example/other", True),
            ("https://relay.example:4443/live", False),
            ("https://relay2.example/live", False),
            ("https://sub.relay.example/live", False),
            ("https://relay.example.evil.example/live", False),
            ("https://relay.example./live", False),
            ("moqt://relay.example/live", False),
        ],
    )
    def test_the_default_allows_another_path_only(self, uri, allowed):
        """Scheme, host and port have to stay what they are."""
        if allowed:
            assert not follow(uri, policy=allow_same_authority).foreign
        else:
            with pytest.raises(moqt.RedirectRefused, match="does not allow"):
                follow(uri, policy=allow_same_authority)

    def test_what_a_policy_sees(self):
        """A policy gets both URLs, the host and the port of the new one, and the number of the hop."""
        seen = []
        redirects = RedirectChain(HOME, policy=lambda redirect: seen.append(redirect) or True)
        there = redirects.follow(Candidate(HOME), "moqt://Two.example/b", sender=None)
        redirects.follow(there, "moqt://[2001:DB8::3]:4443/c", sender=None)
        assert seen == [
            Redirect(HOME, "moqt://Two.example/b", 1),
            Redirect("moqt://Two.example/b", "moqt://[2001:DB8::3]:4443/c", 2),
        ]
        assert [(each.host, each.port, each.same_authority) for each in seen] == [
            ("two.example", 443, False),
            ("2001:db8::3", 4443, False),
        ]

    def test_a_redirect_is_a_value_without_secrets(self):
        """It cannot be changed, and its repr has no query."""
        redirect = Redirect(HOME, "https://relay.example/b?jwt=secret", 1)
        assert TOKEN not in repr(redirect)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            redirect.hop = 2

    def test_a_refusal_names_the_way_out(self):
        """The error has both URLs, without their queries, and what to do."""
        with pytest.raises(moqt.RedirectRefused) as caught:
            follow("https://other.example/x?key=hidden", policy=allow_same_authority)
        error = caught.value
        assert str(error) == (
            "the server at https://relay.example/live?... asks this client to move to 'https://other.example/x?...', "
            "which the redirect policy does not allow; stay_connected(redirect=...) decides which moves are"
        )
        assert error.uri == "https://other.example/x?..."
        assert error.chain == ("https://relay.example/live?...", "https://other.example/x?...")
        assert isinstance(error, moqt.ConnectError)

    def test_the_policys_own_failure_comes_out(self):
        """What a policy raises is raised as it is."""

        def broken(redirect):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            follow("https://relay.example/x", policy=broken)

    def test_an_async_policy(self):
        """An async function, whose coroutine would count as True, is refused before it is called."""

        async def policy(redirect):
            return False

        with pytest.raises(TypeError, match="plain function"):
            RedirectChain(HOME, policy=policy)


class TestHops:
    def test_three_in_a_row(self):
        """The fourth redirect in a row is refused, and the error shows the whole chain."""
        redirects = RedirectChain("https://a.example/", policy=anywhere)
        place = Candidate("https://a.example/")
        for name in "bab":
            place = redirects.follow(place, f"https://{name}.example/", sender=None)
        with pytest.raises(moqt.RedirectRefused, match="max_redirects") as caught:
            redirects.follow(place, "https://a.example/", sender=None)
        assert caught.value.chain == tuple(f"https://{name}.example/" for name in "ababa")
        assert " -> ".join(caught.value.chain) in str(caught.value)

    def test_empty_ones_count(self):
        """GOAWAYs without a URI are followed three times in a row, too."""
        redirects = RedirectChain(HOME, policy=anywhere)
        for _ in range(3):
            assert redirects.follow(Candidate(HOME), "", sender=None) == Candidate(HOME)
        with pytest.raises(moqt.RedirectRefused, match="after 3 in a row"):
            redirects.follow(Candidate(HOME), "", sender=None)

    def test_a_session_that_worked_starts_anew(self):
        """After it the next redirect is the first one."""
        hops = []
        redirects = RedirectChain(HOME, policy=lambda redirect: hops.append(redirect.hop) or True, max_redirects=1)
        for _ in range(5):
            redirects.follow(Candidate(HOME), "https://relay.example/live", sender=None)
            redirects.reset()
        assert hops == [1] * 5

    @pytest.mark.parametrize("uri", ["", "https://relay.example/live"])
    def test_none_at_all(self, uri):
        """With max_redirects=0 no GOAWAY is followed."""
        with pytest.raises(moqt.RedirectRefused, match="after 0 in a row"):
            RedirectChain(HOME, policy=anywhere, max_redirects=0).follow(Candidate(HOME), uri, sender=None)

    def test_bad_values(self):
        """A number below 0 and a network that is none are the caller's mistakes."""
        with pytest.raises(ValueError, match="max_redirects is a number from 0 on, not -1"):
            RedirectChain(HOME, policy=anywhere, max_redirects=-1)
        with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
            RedirectChain(HOME, policy=anywhere, networks=["10.0.0.1/8"])


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "kind"),
        [
            ("8.8.8.8", "public"),
            ("2606:4700::1111", "public"),
            ("127.0.0.1", "loopback"),
            ("127.8.9.1", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("fe80::1%eth0", "link-local"),
            ("10.1.2.3", "private"),
            ("172.16.0.1", "private"),
            ("172.32.0.1", "public"),
            ("192.168.1.1", "private"),
            ("fd00:ec2::254", "private"),
            ("fec0::1", "private"),
            ("100.64.0.1", "shared"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("0.1.2.3", "private"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:8.8.8.8", "public"),
            ("::ffff:169.254.169.254", "link-local"),
            ("64:ff9b::169.254.169.254", "link-local"),
            ("64:ff9b::8.8.8.8", "public"),
            ("2002:7f00:1::", "loopback"),
            ("::127.0.0.1", "reserved"),
        ],
    )
    def test_kinds(self, address, kind):
        """Each address is of one kind, whatever it is wrapped in (RFC 6890; RFC 6052 and 3056 for what wraps)."""
        assert kind_of(address) == kind

    def allowed(self, addresses, sender, networks=()):
        redirects = RedirectChain(HOME, policy=anywhere, networks=networks)
        return redirects.choose_addresses(Candidate("https://other.example/", True, sender), addresses)

    @pytest.mark.parametrize("address", ["127.0.0.1", "169.254.1.1", "10.0.0.1", "100.64.0.1", "fd00::1", "::1"])
    @pytest.mark.parametrize("sender", ["8.8.8.8", "2606:4700::1111", None])
    def test_a_public_server_leads_to_public_addresses(self, address, sender):
        """A server on the internet cannot redirect a client into private networks."""
        with pytest.raises(moqt.RedirectRefused, match="redirect_networks") as caught:
            self.allowed([address], sender)
        assert f"{address} ({kind_of(address)})" in str(caught.value)

    @pytest.mark.parametrize(
        ("sender", "address"),
        [
            ("127.0.0.1", "::1"),
            ("10.0.0.1", "192.168.0.9"),
            ("169.254.0.1", "fe80::1"),
            ("100.64.0.1", "100.127.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.2"),
        ],
    )
    def test_like_leads_to_like(self, sender, address):
        """A server with such an address itself may name another of the kind, and public ones."""
        assert self.allowed([address, "8.8.8.8"], sender) == [address, "8.8.8.8"]

    @pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"])
    def test_loopback_leads_to_nothing_else(self, address):
        """A server on loopback cannot redirect a client into other networks."""
        with pytest.raises(moqt.RedirectRefused):
            self.allowed([address], "127.0.0.1")

    @pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])
    def test_never(self, address):
        """An address that no server can have is refused whatever the sender is and whatever the caller allows."""
        with pytest.raises(moqt.RedirectRefused):
            self.allowed([address], address, ["0.0.0.0/0", "::/0"])

    def test_networks(self):
        """The caller allows further networks; an address in none of them is refused."""
        found = ["10.1.0.1", "10.2.0.1", "fd00::1", "::ffff:10.1.0.2", "8.8.8.8"]
        assert self.allowed(found, "8.8.8.8", ["10.1.0.0/16", "fd00::/8"]) == [
            "10.1.0.1",
            "fd00::1",
            "::ffff:10.1.0.2",
            "8.8.8.8",
        ]

    def test_only_those_that_passed(self):
        """Of a name with several addresses only those that are allowed are tried, in their order."""
        assert self.allowed(["127.0.0.1", "8.8.8.8", "10.0.0.1", "9.9.9.9"], "1.1.1.1") == ["8.8.8.8", "9.9.9.9"]

    def test_a_name_without_addresses(self):
        """A name that resolves to nothing is refused, too."""
        with pytest.raises(moqt.RedirectRefused, match="no address"):
            self.allowed([], "1.1.1.1")


@pytest.mark.parametrize(
    ("uri", "host", "port", "path"),
    [
        ("moqt://relay.example", "relay.example", 443, "/"),
        ("moql://relay.example:1/x?y", "relay.example", 1, "/x?y"),
        ("https://[2001:db8::1]:4443/a%20b", "2001:db8::1", 4443, "/a%20b"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/"),
    ],
)
def test_parse_uri(uri, host, port, path):
    """The URI of a session is read as `connect` reads it."""
    where = parse_uri(uri)
    assert (where.host, where.port, where.path) == (host, port, path)
