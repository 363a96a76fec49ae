"""Fetches URLs sent by clients, without giving them access to the server's own network.

The host is resolved once, every address it resolves to is checked, and the connection goes to a
checked address. This happens when the connection is made, so redirects are checked like the first
URL, and a name that resolves differently the second time has no effect. The Host header and the
TLS server name remain those of the URL.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import partial

from segrt.errors import InputError
from segrt.http import download
from segrt.transport import Resolve, Transport

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Inside 2000::/3, but leading to IPv4 addresses or assigned to no host.
_TUNNELS = [
    ipaddress.ip_network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]
# Public according to some versions of Python, but two clouds serve instance metadata there.
_METADATA = [ipaddress.ip_network(net) for net in ("168.63.129.16/32", "192.0.0.0/24")]


def fetch(url: str, *, seconds: float, max_bytes: int) -> bytes:
    """Fetch a public http(s) URL.

    Example:
        >>> data = fetch("https://example.org/road.png", seconds=10, max_bytes=16 << 20)

    Args:
        url: the URL; redirects are followed.
        seconds: time limit of the whole transfer.
        max_bytes: size limit.

    Raises:
        InputError: it can't be downloaded, or its address is not public.
        TooLargeError: it is too large.
    """
    with PublicTransport(seconds) as transport:
        return download(url, transport=transport, seconds=seconds, max_bytes=max_bytes)


def is_public(address: str) -> bool:
    """Whether an address belongs to a host on the public internet.

    Private, loopback, link-local (used for cloud metadata), shared, multicast and reserved
    addresses do not, nor do IPv6 addresses that embed IPv4: mapped, compatible, 6to4, Teredo and
    NAT64.

    Example:
        >>> is_public("8.8.8.8"), is_public("169.254.169.254")
        (True, False)
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # an IPv6 zone, as in fe80::1%eth0, which some Python versions reject
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip not in _GLOBAL_UNICAST or any(ip in net for net in _TUNNELS)
    ):
        return False
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or any(ip in net for net in _METADATA)
    )


def resolve(host: str, port: int) -> list[str]:
    """Resolve a host name with the system's resolver.

    Raises:
        InputError: the host is unknown.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InputError(f"{host} can't be found: no such host") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class PublicTransport(Transport):
    """Connects only to public addresses, under one deadline, and without a proxy.

    Args:
        seconds: time limit of all transfers together.
        resolve: resolves host names.
    """

    def __init__(self, seconds: float, resolve: Resolve = resolve) -> None:
        super().__init__(seconds, resolve=partial(_public, resolve), trust_env=False)


def _public(resolve: Resolve, host: str, port: int) -> list[str]:
    """The addresses of a host, all of which must be public.

    Raises:
        InputError: one is not.
    """
    addresses = [] if _is_disguised(host) else resolve(host, port)
    if not addresses or not all(map(is_public, addresses)):
        raise InputError(
            f"{host} is not an address that this server fetches from: only public ones are"
        )
    return addresses


def _is_disguised(host: str) -> bool:
    """Whether a host is an IPv4 address in an unusual form: decimal, octal, hex or shortened."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) != host
    except OSError:
        return False
