// What tsdav sees. It prints a line for each step: its name, a tab, and what came as JSON, or the error. It goes on behind an error.
import { createRequire } from "node:module";

const [library, serverUrl, username, password] = process.argv.slice(2);
const { createDAVClient } = createRequire(library + "/")("tsdav");

const event = (uid, title) =>
  `BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//postern//lab//EN\r\nBEGIN:VEVENT\r\nUID:${uid}\r\nDTSTAMP:20260105T083000Z\r\n` +
  `DTSTART:20260203T090000Z\r\nDTEND:20260203T100000Z\r\nSUMMARY:${title}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n`;
const card = (uid, name) => `BEGIN:VCARD\r\nVERSION:3.0\r\nUID:${uid}\r\nFN:${name}\r\nN:${name};;;;\r\nEND:VCARD\r\n`;
const name = (o) => new URL(o.url).pathname.replace(/\/$/, "").split("/").pop();
const names = (list) => list.map(name).sort();

async function step(what, action) {
  let got;
  try {
    got = await action();
  } catch (e) {
    console.error(e);
    got = e.message;
  }
  console.log(`${what}\t${JSON.stringify(got)}`);
  return got;
}

// client discovers from the server's address alone.
const client = (defaultAccountType) =>
  createDAVClient({ serverUrl, credentials: { username, password }, authMethod: "Basic", defaultAccountType });

// lives makes, changes and deletes an object, and tells what a sync says in between.
async function lives(client, collection, kind, texts, fetch, create, update, remove) {
  const object = { url: new URL(`ts.${kind}`, collection.url).href };
  collection.objects = await fetch(collection);
  collection.objectMultiGet = kind === "ics" ? client.calendarMultiGet : client.addressBookMultiGet;
  await step(`${kind}: there`, () => names(collection.objects));
  await step(`${kind}: made`, async () => (await create(collection, `ts.${kind}`, texts[0])).status);
  await step(`${kind}: made again`, async () => (await create(collection, `ts.${kind}`, texts[0])).status);
  await step(`${kind}: synced`, async () => {
    const { created, updated, deleted } = (await client.smartCollectionSync({ collection, detailedResult: true })).objects;
    return [created, updated, deleted].map(names);
  });
  const made = (await fetch(collection)).find((o) => name(o) === `ts.${kind}`);
  Object.assign(object, made);
  await step(`${kind}: changed over another version`, async () => (await update({ ...object, data: texts[1], etag: '"other"' })).status);
  await step(`${kind}: changed`, async () => (await update({ ...object, data: texts[1] })).ok);
  await step(`${kind}: read`, async () => (await fetch(collection)).find((o) => name(o) === `ts.${kind}`)?.data.includes("Second"));
  await step(`${kind}: deleted over another version`, async () => (await remove({ ...object, etag: '"other"' })).status);
  await step(`${kind}: deleted`, async () => (await remove({ url: object.url })).ok);
  await step(`${kind}: left`, async () => names(await fetch(collection)));
}

const caldav = await client("caldav");
const calendars = await step("calendars", async () => names(await caldav.fetchCalendars())).then(() => caldav.fetchCalendars());
await step("reports", () => [...new Set(calendars.flatMap((c) => c.reports))].sort());
await step("make a calendar", async () => (await caldav.makeCalendar({ url: new URL("../made/", calendars[0]?.url ?? serverUrl).href, props: { displayname: "Made" } }))[0].status);
await step("new calendars", async () => {
  const { created, deleted } = await caldav.syncCalendars({ oldCalendars: calendars, detailedResult: true });
  return [names(created), names(deleted)];
});
const work = calendars.find((c) => name(c) === "work");
if (work) {
  await lives(
    caldav, work, "ics", [event("ts", "First"), event("ts", "Second")],
    (calendar) => caldav.fetchCalendarObjects({ calendar }),
    (calendar, filename, iCalString) => caldav.createCalendarObject({ calendar, filename, iCalString }),
    (calendarObject) => caldav.updateCalendarObject({ calendarObject }),
    (calendarObject) => caldav.deleteCalendarObject({ calendarObject }),
  );
  await step("in a time", async () =>
    names(await caldav.fetchCalendarObjects({ calendar: work, timeRange: { start: "2026-01-01T00:00:00Z", end: "2026-01-31T00:00:00Z" } })));
}

const carddav = await client("carddav");
const books = await step("address books", async () => names(await carddav.fetchAddressBooks())).then(() => carddav.fetchAddressBooks());
const friends = books.find((b) => name(b) === "friends");
if (friends) {
  await lives(
    carddav, friends, "vcf", [card("ts", "First"), card("ts", "Second")],
    (addressBook) => carddav.fetchVCards({ addressBook }),
    (addressBook, filename, vCardString) => carddav.createVCard({ addressBook, filename, vCardString }),
    (vCard) => carddav.updateVCard({ vCard }),
    (vCard) => carddav.deleteVCard({ vCard }),
  );
}
