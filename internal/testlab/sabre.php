<?php
// sabre/dav for several users, as the router script of PHP's own web server. The folder data/ beside it holds the database, which the first
// request makes. As with Apache, whoever stands in front says who it is: here in each request's X-Remote-User, the one deviation from the
// groupware server of its examples.
error_reporting(E_ALL & ~E_DEPRECATED); // written before PHP 8
ini_set('display_errors', '0');
date_default_timezone_set('UTC');
require_once 'Sabre/autoload.php';

$user = $_SERVER['HTTP_X_REMOTE_USER'] ?? '';
if ($user === '' || strpos($user, '/') !== false) {
    http_response_code(401);
    exit("X-Remote-User must name the user\n");
}
$_SERVER['REMOTE_USER'] = $user;

$pdo = new PDO('sqlite:' . __DIR__ . '/data/db.sqlite');
$pdo->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
$pdo->exec('
    CREATE TABLE IF NOT EXISTS addressbooks (id INTEGER PRIMARY KEY, principaluri TEXT, displayname TEXT, uri TEXT, description TEXT, ctag INTEGER);
    CREATE TABLE IF NOT EXISTS cards (id INTEGER PRIMARY KEY, addressbookid INTEGER, carddata BLOB, uri TEXT, lastmodified INTEGER);
    CREATE TABLE IF NOT EXISTS calendars (id INTEGER PRIMARY KEY, principaluri TEXT, displayname TEXT, uri TEXT, ctag INTEGER, description TEXT,
        calendarorder INTEGER, calendarcolor TEXT, timezone TEXT, components TEXT, transparent INTEGER);
    CREATE TABLE IF NOT EXISTS calendarobjects (id INTEGER PRIMARY KEY, calendardata BLOB, uri TEXT, calendarid INTEGER, lastmodified INTEGER,
        etag TEXT, size INTEGER, componenttype TEXT, firstoccurence INTEGER, lastoccurence INTEGER);
    CREATE TABLE IF NOT EXISTS principals (id INTEGER PRIMARY KEY, uri TEXT UNIQUE, email TEXT, displayname TEXT, vcardurl TEXT);
    CREATE TABLE IF NOT EXISTS groupmembers (id INTEGER PRIMARY KEY, principal_id INTEGER, member_id INTEGER, UNIQUE (principal_id, member_id));
');
$pdo->prepare('INSERT OR IGNORE INTO principals (uri, email, displayname) VALUES (?, ?, ?)')->execute(["principals/$user", $user, $user]);

$principals = new Sabre\DAVACL\PrincipalBackend\PDO($pdo);
$server = new Sabre\DAV\Server([
    new Sabre\CalDAV\Principal\Collection($principals),
    new Sabre\CalDAV\CalendarRootNode($principals, new Sabre\CalDAV\Backend\PDO($pdo)),
    new Sabre\CardDAV\AddressBookRoot($principals, new Sabre\CardDAV\Backend\PDO($pdo)),
]);
$server->setBaseUri('/');
$server->addPlugin(new Sabre\DAV\Auth\Plugin(new Sabre\DAV\Auth\Backend\Apache(), 'lab'));
$server->addPlugin(new Sabre\DAV\Browser\Plugin());
$server->addPlugin(new Sabre\CalDAV\Plugin());
$server->addPlugin(new Sabre\CardDAV\Plugin());
$server->addPlugin(new Sabre\DAVACL\Plugin());
$server->exec();
