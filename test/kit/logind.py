# A systemd-logind for tests: it owns org.freedesktop.login1 on the bus of DBUS_SYSTEM_BUS_ADDRESS, as org.freedesktop.login1(5) has it, as far as an agent looks at it.
# Standard input, a line each:  session ID UID | end ID | ask ID (signal Lock) | free ID (signal Unlock) | hint ID 0|1 (LockedHint) | sleep | wake | delay USEC | refuse 0|1
# Standard output, a line of JSON each: ready, done (a command was carried out), inhibit (somebody takes an inhibitor), released (the descriptor is closed).
import json
import os
import sys

import dbus
import dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

SERVICE = "org.freedesktop.login1"
ROOT = "/org/freedesktop/login1"
PROPERTIES = "org.freedesktop.DBus.Properties"


def say(event, **rest):
    print(json.dumps({"event": event, **rest}), flush=True)


class Refused(dbus.DBusException):
    _dbus_error_name = "org.freedesktop.DBus.Error.AccessDenied"


class Session(dbus.service.Object):
    def __init__(self, bus, number, uid):
        self.path = f"{ROOT}/session/_3{number}"
        self.number, self.uid, self.hint = number, int(uid), False
        super().__init__(bus, self.path)

    @dbus.service.method(PROPERTIES, in_signature="ss", out_signature="v")
    def Get(self, _interface, name):
        if name == "User":
            return dbus.Struct((dbus.UInt32(self.uid), dbus.ObjectPath(f"{ROOT}/user/_{self.uid}")), signature="uo", variant_level=1)
        return dbus.Boolean(self.hint, variant_level=1)

    @dbus.service.signal(f"{SERVICE}.Session")
    def Lock(self):
        pass

    @dbus.service.signal(f"{SERVICE}.Session")
    def Unlock(self):
        pass

    @dbus.service.signal(PROPERTIES, signature="sa{sv}as")
    def PropertiesChanged(self, interface, changed, invalidated):
        pass

    def set_hint(self, value):
        self.hint = value == "1"
        self.PropertiesChanged(f"{SERVICE}.Session", {"LockedHint": self.hint}, [])


class Manager(dbus.service.Object):
    def __init__(self, bus):
        super().__init__(bus, ROOT)
        self.bus, self.sessions = bus, {}
        self.delay, self.sleeping, self.refusing = 5_000_000, False, False

    @dbus.service.method(f"{SERVICE}.Manager", in_signature="ssss", out_signature="h", sender_keyword="sender")
    def Inhibit(self, what, who, why, mode, sender=None):
        if self.refusing:
            raise Refused("Permission denied")
        if self.sleeping:
            raise dbus.DBusException("in progress", name="org.freedesktop.login1.OperationInProgress")
        mine, theirs = os.pipe()
        say("inhibit", what=what, who=who, mode=mode, sender=sender)
        GLib.io_add_watch(mine, GLib.IO_HUP, self.released, mine)
        descriptor = dbus.types.UnixFd(theirs)
        os.close(theirs)
        return descriptor

    def released(self, _source, _condition, mine):
        os.close(mine)
        say("released")
        return False

    @dbus.service.method(f"{SERVICE}.Manager", out_signature="a(susso)")
    def ListSessions(self):
        return [(s.number, dbus.UInt32(s.uid), "somebody", "seat0", dbus.ObjectPath(s.path)) for s in self.sessions.values()]

    @dbus.service.method(PROPERTIES, in_signature="ss", out_signature="v")
    def Get(self, _interface, name):
        if name == "InhibitDelayMaxUSec":
            return dbus.UInt64(self.delay, variant_level=1)
        return dbus.Boolean(self.sleeping, variant_level=1)

    @dbus.service.signal(f"{SERVICE}.Manager", signature="b")
    def PrepareForSleep(self, start):
        pass

    def obey(self, command, *args):
        if command == "session":
            self.sessions[args[0]] = Session(self.bus, *args)
        elif command == "end":
            self.sessions.pop(args[0]).remove_from_connection()
        elif command == "ask":
            self.sessions[args[0]].Lock()
        elif command == "free":
            self.sessions[args[0]].Unlock()
        elif command == "hint":
            self.sessions[args[0]].set_hint(args[1])
        elif command in ("sleep", "wake"):
            self.sleeping = command == "sleep"
            self.PrepareForSleep(self.sleeping)
        elif command == "delay":
            self.delay = int(args[0])
        elif command == "refuse":
            self.refusing = args[0] == "1"


def read(_source, condition, manager, loop):
    line = sys.stdin.readline() if condition & GLib.IO_IN else ""
    if not line:
        loop.quit()
        return False
    manager.obey(*line.split())
    manager.bus.flush()
    say("done")
    return True


DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(os.environ["DBUS_SYSTEM_BUS_ADDRESS"])
name = dbus.service.BusName(SERVICE, bus, do_not_queue=True)
manager, loop = Manager(bus), GLib.MainLoop()
GLib.io_add_watch(sys.stdin, GLib.IO_IN | GLib.IO_HUP, read, manager, loop)
say("ready")
loop.run()
