"""The lab's network: cables and their failures, a host that loses power, and what is open to the others."""

import errno
import socket
import time
from functools import partial

import pytest
from tests.support.cluster import wait_until
from tests.support.lab import Host, Lab

_PORT = 5000


def udp(host: Host) -> socket.socket:
    """A socket of that host's, used from here."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((host.address, _PORT))
        made.settimeout(0.5)
        return made

    return host.spaces.on_network(make)


def arrives(source: socket.socket, target: socket.socket) -> bool:
    text = f"{time.monotonic()}".encode()
    source.sendto(text, target.getsockname())
    try:
        while target.recv(100) != text:  # what waited for a cut to heal comes first
            pass
    except TimeoutError:
        return False
    return True


def dialled(host: Host, address: str, port: int) -> socket.socket:
    return host.spaces.on_network(partial(socket.create_connection, (address, port), 10))


def connected(host: Host, other: Host) -> tuple[socket.socket, socket.socket]:
    """A TCP connection between two hosts, both ends of it."""
    with other.spaces.on_network(lambda: socket.create_server((other.address, _PORT))) as server:
        near = dialled(host, other.address, _PORT)
        far, _ = server.accept()
    for end in (near, far):
        end.settimeout(10)
    return near, far


def test_no_way_leads_outside_or_to_the_machine_that_has_the_lab(lab: Lab) -> None:
    with socket.create_server(("0.0.0.0", 0)) as here:
        port = here.getsockname()[1]
        for host in lab.hosts:
            assert host.run(["ip", "route", "show"]).stdout.split()[:3] == ["10.77.0.0/24", "dev", "eth0"]
            assert host.run(["ip", "route", "get", "192.0.2.1"], check=False).status != 0
            for address in ("127.0.0.1", "10.77.0.1"):
                with pytest.raises(ConnectionRefusedError):
                    dialled(host, address, port)


def test_a_cut_stops_both_directions_and_healing_loses_nothing(lab: Lab) -> None:
    blep, mac = udp(lab.blep), udp(lab.mac)
    near, far = connected(lab.blep, lab.mac)
    with blep, mac, near, far:
        assert arrives(blep, mac)
        assert arrives(mac, blep)

        lab.cut(lab.mac)
        assert not arrives(blep, mac)
        assert not arrives(mac, blep)
        assert arrives(blep, blep)
        near.sendall(b"sent into the cut")
        lab.heal(lab.mac)

        assert far.recv(100) == b"sent into the cut"
        assert arrives(blep, mac)
        assert arrives(mac, blep)


@pytest.mark.parametrize(("source", "target"), [("blep", "mac"), ("mac", "blep")])
def test_a_one_way_cut_stops_one_direction_and_the_sender_is_not_told(lab: Lab, source: str, target: str) -> None:
    theirs, ours = udp(lab[source]), udp(lab[target])
    with theirs, ours:
        lab.cut_one_way(lab[source], lab[target])
        lab.cut_one_way(lab[source], lab[target])

        assert not arrives(theirs, ours)
        assert arrives(ours, theirs)

        lab.heal(lab.mac)
        assert arrives(theirs, ours)
        assert arrives(ours, theirs)


def test_a_one_way_cut_leaves_the_other_hosts_alone(lab: Lab) -> None:
    blep, workstation, mac = (udp(host) for host in lab.hosts)
    with blep, workstation, mac:
        lab.cut_one_way(lab.blep, lab.mac)
        assert arrives(blep, workstation)
        assert arrives(workstation, mac)
        lab.heal(lab.workstation)
        assert not arrives(blep, mac)


def test_a_reset_ends_the_connections_of_two_hosts_and_of_no_third(lab: Lab) -> None:
    near, far = connected(lab.blep, lab.mac)
    with near, far:
        third, fourth = connected(lab.workstation, lab.mac)
        with third, fourth:
            assert lab.reset(lab.blep, lab.mac) == 1
            with pytest.raises(ConnectionError):
                near.recv(1)
            with pytest.raises(ConnectionResetError):
                far.recv(1)
            third.sendall(b"well")
            assert fourth.recv(10) == b"well"


def test_a_host_that_loses_power_tells_nobody_and_comes_back_with_its_disk(lab: Lab) -> None:
    lab.mac.write("/root/kept", "x")
    lab.mac.write("/tmp/lost", "x")
    lab.mac.restart_sshd(Banner="/etc/hostname")
    sleeper = lab.mac.popen(["sleep", "1000"])
    near, far = connected(lab.blep, lab.mac)
    with near, far:
        near.settimeout(1)
        lab.mac.power_off()
        assert sleeper.wait(10) != 0
        assert (lab.mac.is_on, lab.mac.processes()) == (False, [])
        far.close()
        with pytest.raises(TimeoutError):
            near.recv(1)

        lab.mac.power_on()

        near.settimeout(20)
        near.sendall(b"are you there?")
        with pytest.raises(ConnectionResetError):
            near.recv(1)
    assert "/root/kept" in lab.mac.files()
    assert "/tmp/lost" not in lab.mac.files()
    assert lab.mac.processes("sleep") == []
    lab.introduce(lab.blep, lab.mac)
    assert lab.blep.run(["ssh", "mac", "hostname"]).stderr == "mac\n"


def test_a_reboot_ends_what_runs_even_if_it_is_frozen_or_deaf(lab: Lab) -> None:
    frozen = lab.mac.popen(["sleep", "1000"])
    deaf = lab.mac.popen(["sh", "-c", "trap '' TERM HUP INT; echo ready; while :; do sleep 1; done"])
    deaf.wait_for("ready")
    lab.mac.processes("sleep 1000")[0].suspend()

    lab.mac.reboot()

    assert lab.mac.processes("sleep") == []
    assert frozen.wait(10) != 0
    assert deaf.wait(10) != 0


def test_a_scan_finds_sshd_and_whatever_else_is_open_to_others(lab: Lab) -> None:
    assert lab.open_ports(lab.blep, lab.mac) == {22}
    serve = ["python3", "-m", "http.server", "--bind"]
    lab.mac.popen([*serve, "0.0.0.0", "65535"])
    lab.mac.popen([*serve, "127.0.0.1", "9200"])
    wait_until(lambda: set(lab.mac.ports()) == {22, 9200, 65_535}, 20, "both listen")

    assert lab.mac.ports()[9200] == {"127.0.0.1"}
    assert lab.open_ports(lab.blep, lab.mac) == {22, 65_535}
    assert lab.open_ports(lab.blep, lab.workstation) == {22}


def test_an_error_inside_a_network_comes_out_as_itself(lab: Lab) -> None:
    with pytest.raises(OSError, match="unreachable") as caught:
        dialled(lab.mac, "192.0.2.1", 80)
    assert caught.value.errno == errno.ENETUNREACH
