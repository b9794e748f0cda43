"""What python-caldav sees from the one address that it is given. It prints a line for each step: its name, a tab, and what came, or the
error that was raised. It goes on behind an error."""

import sys
import traceback
from datetime import datetime

import caldav
from caldav.elements import dav

url, used, header, ca, user, password = (sys.argv[1:] + [None] * 5)[:6]
event, todo = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//postern//lab//EN\r\n" + component + "END:VCALENDAR\r\n"
    for component in (
        "BEGIN:VEVENT\r\nUID:py-event\r\nDTSTAMP:20260105T083000Z\r\nDTSTART:20260203T090000Z\r\nDTEND:20260203T100000Z\r\n"
        "RRULE:FREQ=DAILY;COUNT=3\r\nSUMMARY:Frühstück\r\nEND:VEVENT\r\n",
        "BEGIN:VTODO\r\nUID:py-todo\r\nDTSTAMP:20260105T083000Z\r\nSUMMARY:Einkaufen\r\nSTATUS:NEEDS-ACTION\r\nEND:VTODO\r\n",
    )
)


def path(o):
    return caldav.lib.url.URL.objectify(o.url).path


def name(o):
    return path(o).rstrip("/").rsplit("/", 1)[-1]


def names(objects):
    return sorted(name(o) for o in objects)


def step(what, do):
    try:
        got = do()
    except Exception as e:
        traceback.print_exc()
        got = type(e).__name__
    print(what, got, sep="\t", flush=True)


def find(calendar, **filters):
    return calendar.search(start=datetime(2026, 2, 1), end=datetime(2026, 2, 28), event=True, **filters)


def days(events):
    return sorted(e.vobject_instance.vevent.dtstart.value.strftime("%m-%d") for e in events)


def change(event):
    event.data = event.data.replace("Köln", "Bonn")
    event.save()
    event.load()
    return "Bonn" in event.data


def rename(calendar):
    calendar.set_properties([dav.DisplayName("Neu")])
    return calendar.get_display_name()


def busy(calendar):
    answer = calendar.freebusy_request(datetime(2026, 2, 1), datetime(2026, 2, 28))
    return sum(line.startswith("FREEBUSY") for line in answer.data.splitlines())


def sync(calendar, known):
    """Makes an event and deletes it, and returns what each sync says."""
    told = []
    for do in (
        lambda: calendar.save_event(event.replace("py-event", "py-other")),
        lambda: calendar.event_by_uid("py-other").delete(),
    ):
        do()
        changed, gone = known.sync()
        told.append((names(changed), names(gone)))
    return told


client = caldav.DAVClient(url=url, username=user, password=password, ssl_verify_cert=ca)
if header:
    client.headers.update([header.split(": ", 1)])
principal = client.principal()
step("principal", lambda: path(principal))
step("home", lambda: path(principal.calendar_home_set))
step("addresses", lambda: [a for a in principal.calendar_user_address_set() if a.startswith("mailto:")])
step("calendars", lambda: names(principal.calendars()))
step("make a calendar", lambda: name(principal.make_calendar(name="Made", cal_id="made")))
step("its name", lambda: principal.calendar(cal_id="made").get_display_name())
calendar = principal.calendar(cal_id=used)
step("what is there", lambda: names(calendar.events()))
step("make an event", lambda: name(calendar.save_event(event)))
step("make a to-do", lambda: name(calendar.save_todo(todo)))
step("search", lambda: names(find(calendar)))
step("expand", lambda: days(find(calendar, expand=True)))
step("to-dos", lambda: names(calendar.todos()))
step("change", lambda: change(calendar.event_by_uid("1")))
step("multiget", lambda: names(calendar.calendar_multiget([e.url for e in calendar.events()])))
step("sync", lambda: names(o for o in calendar.objects_by_sync_token(load_objects=True) if o.data))  # Radicale tells what is gone, too
step("changes", lambda: sync(calendar, calendar.objects_by_sync_token(load_objects=True)))
step("busy", lambda: busy(calendar))
step("rename", lambda: rename(calendar))
step("delete an event", lambda: calendar.event_by_uid("1").delete())
step("what is left", lambda: names(calendar.events() + calendar.todos()))
step("delete the calendar", lambda: principal.calendar(cal_id="made").delete())
step("calendars at last", lambda: names(principal.calendars()))
