# Says what is on a machine, one fact a line behind $nonce. For any POSIX sh: dash, busybox, bash as sh on macOS.
# $asked: the home of rbee, absolute or below ~. Nothing is written anywhere.
# All of it is one function, so that no program it starts reads the rest of this text as its input.

say() { printf '\n%s %s\n' "$nonce" "$*"; }

one_line() { head -c 4096 "$1" | tr '\n\r' '  '; }

python_facts='
import json, platform, struct, sys, sysconfig
from importlib.util import find_spec
soabi = str(sysconfig.get_config_var("SOABI"))
print("python " + json.dumps({
    "path": getattr(sys, "_base_executable", None) or sys.executable,
    "version": list(sys.version_info[:3]),
    "implementation": sys.implementation.name,
    "bits": struct.calcsize("P") * 8,
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "venv": find_spec("venv") is not None,
    "system": platform.system(),
    "machine": platform.machine(),
    "libc": "musl" if "musl" in soabi else platform.libc_ver()[0],
    "libc_version": platform.libc_ver()[1],
    "macos_version": platform.mac_ver()[0],
}))
'

# macOS ships programs that only open a window that offers to install them
is_real() {
    case $system:$1 in
    Darwin:/usr/bin/*) xcode-select -p >/dev/null 2>&1 ;;
    esac
}

ask_python() {
    [ -f "$1" ] && [ -x "$1" ] && is_real "$1" || return 0
    asked_pythons=$((asked_pythons + 1))
    [ "$asked_pythons" -le 32 ] || return 0
    say trying "$1"
    facts=$("$1" -I -c "$python_facts" 2>/dev/null) && say "$facts"
}

ask_pythons_in() {
    for name in python3 python3.11 python3.12 python3.13 python3.14 python3.15 python3.16; do
        ask_python "$1/$name"
    done
}

find_pythons() {
    asked_pythons=0
    rest=$PATH:/usr/bin:/opt/homebrew/bin:/usr/local/bin:$HOME/.local/bin:$HOME/.pyenv/shims
    seen=:
    while [ -n "$rest" ]; do
        directory=${rest%%:*}
        case $rest in *:*) rest=${rest#*:} ;; *) rest= ;; esac
        case $seen in *:"$directory":*) continue ;; esac
        seen=$seen$directory:
        case $directory in /*) ask_pythons_in "$directory" ;; esac
    done
    for python in "$HOME"/.pyenv/versions/*/bin/python3 "${XDG_DATA_HOME:-$HOME/.local/share}"/uv/python/*/bin/python3
    do
        ask_python "$python"
    done
}

find_tools() {
    for name in c++ g++ clang++; do
        tool=$(command -v "$name") && is_real "$tool" && "$tool" --version >/dev/null 2>&1 && say compiler "$tool" && break
    done
    tool=$(command -v cmake) && is_real "$tool" && say cmake "$tool"
}

find_home() {
    case $asked in
    \~) home=$HOME ;;
    \~/*) home=$HOME/${asked#\~/} ;;
    *) home=$asked ;;
    esac
    say home "$home"
    near=$home
    while [ ! -d "$near" ]; do near=$(dirname "$near"); done
    say near "$near"
    [ -w "$near" ] && [ -x "$near" ] && say writable yes
    say disk "$(df -Pk "$near" 2>/dev/null | tail -n 1)"
}

find_rbee() {
    [ -f "$home/current/installed.json" ] || return 0
    say installed "$(one_line "$home/current/installed.json")"
    say runs "$("$home/current/bin/python" -I -c 'from rbee_shared.version import __version__ as v; print(v)' 2>/dev/null)"
}

find_hive() {
    file=$home/run/$(uname -n)/rbee-hive.json
    [ -f "$file" ] || return 0
    say hive "$(one_line "$file")"
    pid=$(one_line "$file" | sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p')
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && say alive "$pid"
}

main() {
    HOME=${HOME:-$(cd ~ && pwd)}
    system=$(uname -s)
    say system "$system"
    say machine "$(uname -m)"
    say host "$(uname -n)"
    say user "$(id -un)"
    say cpu "$(grep -m 1 -E '^(flags|Features)' /proc/cpuinfo 2>/dev/null || sysctl -n machdep.cpu.brand_string 2>/dev/null)"
    find_home
    find_rbee
    find_hive
    find_tools
    find_pythons
    say end
}

main </dev/null
