"""The client behind proxies: who is trusted, what they say, and what a stranger may not say."""

import random
import time

import pytest

from prefork.http.forwarded import ForwardedError, Networks, Origin, origin_of

PROXIES = Networks(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7", "unix"])
PEER = "10.0.0.1"


def client_of(fields, peer=PEER, trusted=PROXIES):
    origin = origin_of(fields, peer, trusted)
    return origin and (origin.host, origin.port)


def x_for(*values):
    return [("X-Forwarded-For", value) for value in values]


def forwarded(*values):
    return [("Forwarded", value) for value in values]


@pytest.mark.parametrize(
    "host",
    ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:1::", "2001:db8:1:ffff::1", "::1",
     "::ffff:10.1.2.3", "::FFFF:a01:203", "2001:DB8:1::5", "2001:db8:1::5%eth0", "fe80::1%lo"],
)  # fmt: skip
def test_an_address_within_a_network_is_trusted(host):
    assert host in Networks(["10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48", "::1", "fe80::/10"])


@pytest.mark.parametrize(
    "host",
    ["11.0.0.0", "9.255.255.255", "192.0.2.6", "192.0.2.8", "2001:db8:2::", "::10.0.0.1", "",
     "unix", "localhost", "10.0.0.1 ", "10.0.0.01", "10.1", "10.0.0.1\0", "\udcff", "%", "::%"],
)  # fmt: skip
def test_any_other_address_is_not_trusted(host):
    assert host not in Networks(["10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("cidr", "inside", "outside"),
    [
        ("0.0.0.0/0", "198.51.100.1", "::1"),
        ("::/0", "2001:db8::1", "198.51.100.1"),
        ("::ffff:10.0.0.0/104", "10.2.3.4", "11.0.0.0"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.0/255.255.0.0", "10.0.255.1", "10.1.0.1"),
        ("128.0.0.0/1", "255.255.255.255", "127.255.255.255"),
    ],
)
def test_a_network_may_be_of_any_size(cidr, inside, outside):
    assert inside in Networks([cidr])
    assert outside not in Networks([cidr])


def test_unix_peers_are_trusted_by_their_own_word_only():
    assert "" in PROXIES
    assert "unix" in PROXIES
    assert "" not in Networks(["0.0.0.0/0", "::/0"])
    assert "10.0.0.1" not in Networks(["unix"])
    assert PEER not in Networks([])


def test_more_addresses_than_are_cached_get_right_answers():
    networks = Networks(["10.0.0.0/9"])
    for _ in range(2):
        for number in range(0, 1 << 16, 16):
            host = f"10.{number >> 8}.{number & 255}.1"
            assert (host in networks) == (number >> 8 < 128)


@pytest.mark.parametrize(
    ("cidr", "remedy"),
    [
        ("10.0.0.1/8", r"'10\.0\.0\.1/8': write 10\.0\.0\.0/8 .* or 10\.0\.0\.1 "),
        ("2001:db8::1/32", r"write 2001:db8::/32 .* or 2001:db8::1 "),
        ("10.0.0.0/33", r"'10\.0\.0\.0/33': write an address"),
        ("localhost", "'localhost': write an address"),
        ("*", r"'\*': write an address"),
        ("", "'': write an address"),
        ("fe80::1%eth0", "'fe80::1%eth0': write an address"),
        ("10.0.0.1:80", "'10.0.0.1:80': write an address"),
        ("[::1]", "write an address"),
    ],
)
def test_what_is_no_network_is_named_with_what_to_write(cidr, remedy):
    with pytest.raises(ValueError, match=remedy):
        Networks(["127.0.0.1", cidr])


@pytest.mark.parametrize(
    "fields",
    [
        x_for("198.51.100.9"),
        forwarded("for=198.51.100.9"),
        [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example")],
    ],
)
def test_a_peer_that_is_not_trusted_says_nothing(fields):
    assert origin_of(fields, "203.0.113.5", PROXIES) is None
    assert origin_of(fields, "", Networks(["0.0.0.0/0"])) is None
    assert origin_of(fields, PEER, PROXIES) is not None
    assert origin_of(fields, "", PROXIES) is not None


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("Host", "example.com"), ("User-Agent", "x")],
        x_for(""),
        x_for(" ", "\t"),
        x_for("unknown"),
        forwarded(""),
        forwarded("for=unknown"),
        forwarded("by=10.0.0.1"),
        [("X_Forwarded_For", "198.51.100.9"), ("X-Forwarded_For", "198.51.100.9")],
        [("X_Forwarded_Proto", "https"), ("X_Forwarded_Host", "evil.example")],
        [("X-Real-IP", "198.51.100.9"), ("Client-IP", "198.51.100.9")],
        [("X-Forwarded-Port", "8443")],
        [("X-Forwarded-For ", "198.51.100.9"), ("XX-Forwarded-For", "198.51.100.9")],
    ],
)
def test_a_trusted_peer_that_says_nothing_changes_nothing(fields):
    assert origin_of(fields, PEER, PROXIES) is None


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["198.51.100.9"], ("198.51.100.9", 0)),
        (["198.51.100.9, 10.0.0.2"], ("198.51.100.9", 0)),
        (["198.51.100.9,10.0.0.2 ,\t10.0.0.3"], ("198.51.100.9", 0)),
        (["203.0.113.66, 198.51.100.9, 10.0.0.2"], ("198.51.100.9", 0)),
        (["203.0.113.66", "198.51.100.9", "10.0.0.2"], ("198.51.100.9", 0)),
        (["10.0.0.66, 198.51.100.9"], ("198.51.100.9", 0)),
        (["10.0.0.5, 10.0.0.2"], ("10.0.0.5", 0)),
        (["198.51.100.9:4711, 10.0.0.2:80"], ("198.51.100.9", 4711)),
        (["2001:db8::9, 10.0.0.2"], ("2001:db8::9", 0)),
        (["[2001:db8::9], 10.0.0.2"], ("2001:db8::9", 0)),
        (["[2001:DB8:0::9]:4711"], ("2001:db8::9", 4711)),
        (["2001:db8::9:4711"], ("2001:db8::9:4711", 0)),
        (["::ffff:198.51.100.9"], ("198.51.100.9", 0)),
        (["198.51.100.9, ::ffff:10.0.0.2"], ("198.51.100.9", 0)),
        (["fe80::1%eth0"], ("fe80::1", 0)),
        (["[fe80::1%eth0]:5"], ("fe80::1", 5)),
    ],
)
def test_the_client_is_the_first_address_from_the_right_that_is_not_trusted(values, client):
    assert client_of(x_for(*values)) == client


@pytest.mark.parametrize(
    "garbage",
    ["", "unknown", "_hidden", "unix:", "unix", "localhost", "10.0.0.256", "10.0.0.1:65536",
     "10.0.0.1:", "10.0.0.1:x", "10.0.0.01", "1.2.3", "[::1", "::1]", "[10.0.0.1]", "[::1]x",
     ":::", "10.0.0.1 10.0.0.2", '"10.0.0.1"', "10.0.0.1;", "10.0.0.\u0661", "\udcff", "1" * 4000,
     "10.0.0.1\0", "10.0.0.1/8"],
)  # fmt: skip
def test_what_is_no_address_ends_the_search_at_the_last_good_hop(garbage):
    assert client_of(x_for(f"203.0.113.66, {garbage}, 10.0.0.3, 10.0.0.2")) == ("10.0.0.3", 0)
    told = origin_of([*x_for(f"203.0.113.66, {garbage}"), ("X-Forwarded-Proto", "https")], PEER,
                     PROXIES)  # fmt: skip
    assert told == Origin("", 0, "https", None)


def test_no_more_than_64_proxies_stand_in_a_row():
    hops = ["10.0.0.9"] * 64
    assert client_of(x_for(", ".join(["198.51.100.9", *hops[1:]]))) == ("198.51.100.9", 0)
    assert client_of(x_for(", ".join(["203.0.113.1", "203.0.113.2", *hops]))) == ("10.0.0.9", 0)


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["for=198.51.100.9"], ("198.51.100.9", 0)),
        (["For=198.51.100.9;Proto=http;by=10.0.0.1"], ("198.51.100.9", 0)),
        (["for=198.51.100.9, for=10.0.0.2"], ("198.51.100.9", 0)),
        (["for=203.0.113.66", "for=198.51.100.9,for=10.0.0.2"], ("198.51.100.9", 0)),
        (['for="198.51.100.9:4711"'], ("198.51.100.9", 4711)),
        (['for="198.51.100.9:_port"'], ("198.51.100.9", 0)),
        (['for="[2001:db8:cafe::17]:4711"'], ("2001:db8:cafe::17", 4711)),
        (['for="[2001:db8:cafe::17]"'], ("2001:db8:cafe::17", 0)),
        (['for="\\1\\98.51.100.9"'], ("198.51.100.9", 0)),
        (["proto=https ; for=198.51.100.9 ;; host=x"], ("198.51.100.9", 0)),
        (['for=198.51.100.9;ext="a, b;for=10.9.9.9, c"'], ("198.51.100.9", 0)),
        (['for=198.51.100.9;ext="\\", for=203.0.113.66"'], ("198.51.100.9", 0)),
        (["for=203.0.113.66, for=unknown, for=10.0.0.2"], ("10.0.0.2", 0)),
        (['for=203.0.113.66, for="_gazonk", for=10.0.0.2'], ("10.0.0.2", 0)),
        (["for=203.0.113.66, proto=http, for=10.0.0.2"], ("10.0.0.2", 0)),
        (["for=203.0.113.66, for=10.9.9.9;for=10.0.0.3, for=10.0.0.2"], ("10.0.0.2", 0)),
        (["for=203.0.113.66, for = 10.0.0.3, for=10.0.0.2"], ("10.0.0.2", 0)),
        (["for=203.0.113.66, , for=10.0.0.2"], ("10.0.0.2", 0)),
        (["for=203.0.113.66, 10.0.0.3, for=10.0.0.2"], ("10.0.0.2", 0)),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(values, client):
    assert client_of(forwarded(*values)) == client


@pytest.mark.parametrize(
    "spoof",
    ['for="', 'for=203.0.113.66;x="', 'for="203.0.113.66, for=\\"', '"', "\\", 'x="\\', ";;;",
     'for=203.0.113.66, for="a\\', "for=203.0.113.66,", "=", "\0", 'x="a";y="'],
)  # fmt: skip
@pytest.mark.parametrize("added", ["for=198.51.100.9", 'for="[2001:db8::9]:1"',
                                   'for=198.51.100.9;ext="a,b"'])  # fmt: skip
def test_a_quote_that_a_client_opens_swallows_nothing_that_a_proxy_adds(spoof, added):
    client = ("2001:db8::9", 1) if "db8" in added else ("198.51.100.9", 0)
    assert client_of(forwarded(spoof, added)) == client
    assert client_of(forwarded(f"{spoof},{added}")) == client
    assert client_of(forwarded(f"{spoof}, {added}, for=10.0.0.2")) == client


def test_no_text_of_a_client_shifts_what_proxies_add():
    chance = random.Random(7239)
    for _ in range(5000):
        spoof = "".join(chance.choices('",;=\\ fx', k=chance.randrange(20)))
        told = spoof.replace("\\", "\\\\").replace('"', '\\"')
        added = f'for=198.51.100.9;host="{told}";proto=https;ext="{told}", for=10.0.0.2'
        origin = origin_of(forwarded(spoof, added), PEER, PROXIES)
        assert (origin.host, origin.scheme) == ("198.51.100.9", "https"), spoof


@pytest.mark.parametrize(
    ("fields", "scheme", "authority"),
    [
        ({"X-Forwarded-Proto": "https"}, "https", None),
        ({"X-Forwarded-Proto": "HTTP"}, "http", None),
        ({"X-Forwarded-Proto": "http, https"}, "https", None),
        ({"X-Forwarded-Proto": "https,gopher"}, None, None),
        ({"X-Forwarded-Proto": "https,"}, None, None),
        ({"X-Forwarded-Host": "example.com"}, None, "example.com"),
        ({"X-Forwarded-Host": "evil.example, example.com:8080"}, None, "example.com:8080"),
        ({"X-Forwarded-Host": "[2001:db8::1]:8080"}, None, "[2001:db8::1]:8080"),
        ({"X-Forwarded-Host": "[2001:db8::1::2]"}, None, None),
        ({"X-Forwarded-Host": "example.com:65536"}, None, None),
        ({"X-Forwarded-Host": "user@example.com"}, None, None),
        ({"X-Forwarded-Host": "example.com/path"}, None, None),
        ({"X-Forwarded-Host": "exa mple.com"}, None, None),
        ({"X-Forwarded-Host": "ex\xe4mple.com"}, None, None),
        ({"X-Forwarded-Host": "example.com", "X-Forwarded-Port": "8443"}, None, "example.com:8443"),
        ({"X-Forwarded-Host": "[::1]", "X-Forwarded-Port": "8443"}, None, "[::1]:8443"),
        ({"X-Forwarded-Host": "example.com:1", "X-Forwarded-Port": "2"}, None, "example.com:1"),
        ({"X-Forwarded-Host": "a.example", "X-Forwarded-Port": "80"}, None, "a.example"),
        ({"X-Forwarded-Host": "a.example", "X-Forwarded-Port": "70000"}, None, "a.example"),
        ({"X-Forwarded-Host": "a.example", "X-Forwarded-Port": "\u0665"}, None, "a.example"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example", "X-Forwarded-Port": "443"},
         "https", "a.example"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example", "X-Forwarded-Port": "80"},
         "https", "a.example:80"),
    ],
)  # fmt: skip
def test_scheme_and_authority_are_told_where_they_are_valid(fields, scheme, authority):
    fields = [*x_for("198.51.100.9"), *fields.items()]
    assert origin_of(fields, PEER, PROXIES) == Origin("198.51.100.9", 0, scheme, authority)
    lower = [(name.lower(), value) for name, value in fields]
    assert origin_of(lower, PEER, PROXIES) == Origin("198.51.100.9", 0, scheme, authority)


def test_the_last_of_repeated_fields_counts_for_only_the_peer_can_have_written_it():
    fields = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example"),
              ("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "example.com")]  # fmt: skip
    assert origin_of(fields, "unix", PROXIES) == Origin("", 0, "http", "example.com")


def test_scheme_and_authority_of_forwarded_are_those_of_the_hop_that_the_client_reached():
    fields = forwarded(
        "for=203.0.113.66;proto=gopher;host=evil.example",
        'for=198.51.100.9;proto=https;host="example.com:8443", for=10.0.0.2;proto=http;host=inner',
    )
    assert origin_of(fields, PEER, PROXIES) == Origin(
        "198.51.100.9", 0, "https", "example.com:8443"
    )
    hidden = forwarded('for="_hidden";proto=https;host=example.com')
    assert origin_of(hidden, PEER, PROXIES) == Origin("", 0, "https", "example.com")


@pytest.mark.parametrize(
    "other",
    ["for=203.0.113.66", "for=unknown", "proto=https", "for=10.0.0.9", "garbage", "for="],
)
def test_two_kinds_of_fields_that_name_different_clients_are_refused(other):
    for fields in (
        x_for("198.51.100.9") + forwarded(other),
        forwarded(other) + x_for("198.51.100.9"),
    ):
        with pytest.raises(ForwardedError, match=r"198\.51\.100\.9"):
            origin_of(fields, PEER, PROXIES)
    assert origin_of(fields, "203.0.113.5", PROXIES) is None


def test_two_kinds_of_fields_count_where_they_agree():
    fields = [
        ("X-Forwarded-For", "203.0.113.66, 198.51.100.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "a.example"),
        ("Forwarded", 'for="198.51.100.9:5";proto=https;host=b.example'),
    ]
    assert origin_of(fields, PEER, PROXIES) == Origin("198.51.100.9", 0, "https", None)


def test_what_only_one_of_two_kinds_says_is_not_believed_beside_the_client():
    fields = x_for("198.51.100.9") + forwarded("for=198.51.100.9;proto=https;host=evil.example")
    assert origin_of(fields, PEER, PROXIES) == Origin("198.51.100.9", 0, None, None)


def test_an_empty_field_is_no_field():
    assert client_of(x_for("198.51.100.9") + forwarded(" ")) == ("198.51.100.9", 0)
    assert client_of(x_for("") + forwarded("for=198.51.100.9")) == ("198.51.100.9", 0)


def test_beside_forwarded_alone_other_fields_do_not_count():
    fields = [*forwarded("for=198.51.100.9"), ("X-Forwarded-Proto", "https"),
              ("X-Forwarded-Host", "evil.example")]  # fmt: skip
    assert origin_of(fields, PEER, PROXIES) == Origin("198.51.100.9", 0, None, None)


@pytest.mark.parametrize(
    "unit",
    [",", "10.0.0.2,", "a=b,", "a=b;", 'a="', 'a=",', 'a=",;', 'a="\\",', '="', "\\", '",',
     ";", " ", " ,", "[", ":", "::1,", "for=10.0.0.2,", 'for="10.0.0.2",',
     'a="b";', ',a="b,c";', "a=b "],
)  # fmt: skip
def test_the_cost_of_a_malicious_field_is_linear(unit):
    text = unit * (256 * 1024 // len(unit))
    texts = [text, f'"{text}', f'{text}"', f'for=10.0.0.2;x="{text}"', f'{text}="{text}']
    began_s = time.process_time()
    for fields in (*map(x_for, texts), *map(forwarded, texts)):
        origin_of(fields, PEER, PROXIES)
    assert time.process_time() - began_s < 2
