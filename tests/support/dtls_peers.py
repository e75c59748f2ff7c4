"""Clients of DTLS with a shared key: tinydtls (DTLSSocket) and Mbed TLS (python-mbedtls).

dtls_peers.py LIBRARY HOST PORT IDENTITY KEY MESSAGE…: sends each message (hex) in one session, and prints the answers (hex).
"""

import socket
import sys

CONNECTED = 0x1DE


def tinydtls(host, port, identity, key, messages):
    from DTLSSocket import DTLSSocket as Socket

    peer = Socket(pskId=identity, pskStore={identity: key})
    peer.settimeout(20)
    address = (host, port, 0, 0)
    # kept: a session that nobody holds says goodbye
    peer.connected[address] = peer.d.connect(*address)
    while peer.lastEvent != CONNECTED:
        try:
            peer.recvmsg(2000, cnt=1)
        except BlockingIOError:
            pass
    for message in messages:
        peer.sendmsg([message], address=address)
        yield peer.recvmsg(2000)[0]


def mbedtls(host, port, identity, key, messages):
    from mbedtls import tls

    configuration = tls.DTLSConfiguration(
        lowest_supported_version=tls.DTLSVersion.DTLSv1_2,
        ciphers=("TLS-ECDHE-PSK-WITH-CHACHA20-POLY1305-SHA256", "TLS-PSK-WITH-AES-128-CCM-8"),
        pre_shared_key=(identity.decode(), key),
        validate_certificates=False,
    )
    bare = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    bare.settimeout(20)
    peer = tls.ClientContext(configuration).wrap_socket(bare, server_hostname=None)
    peer.connect((host, port))
    peer.do_handshake()
    for message in messages:
        peer.send(message)
        yield peer.recv(2000)


def main():
    library, host, port, identity, key, *messages = sys.argv[1:]
    speak = {"mbedtls": mbedtls, "tinydtls": tinydtls}[library]
    for answer in speak(host, int(port), identity.encode(), bytes.fromhex(key), map(bytes.fromhex, messages)):
        print(answer.hex(), flush=True)


main()
