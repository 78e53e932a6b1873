"""proxy.py TARGET_HOST TARGET_PORT: passes connections on, until it is stopped (a network that is cut) or killed (one that
refuses). At SIGUSR1 those that are open become silent: they stay, and nothing comes through; new ones work. Prints the port on
which it listens, on loopback. A process of its own, as a signal stops all of one."""
import signal
import socket
import sys
import threading

made = silent = 0           # how many connections there were, and of how many nothing is passed on any more


def silence(*unused):
    global silent
    silent = made


def pump(source, target, number):
    try:
        while data := source.recv(65536):
            if number > silent:
                target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    global made
    signal.signal(signal.SIGUSR1, silence)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection((sys.argv[1], int(sys.argv[2])))
        made += 1
        for ends in ((client, server), (server, client)):
            threading.Thread(target=pump, args=(*ends, made), daemon=True).start()


if __name__ == "__main__":
    main()
