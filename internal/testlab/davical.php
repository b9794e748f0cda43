<?php
// DAViCal as the router script of PHP's own web server: what Apache would do, which runs caldav.php for every path, and with AUTH=header tells the
// user whom it has checked, here whom X-Remote-User names.
error_reporting(E_ALL & ~E_DEPRECATED);
ini_set('display_errors', '0');
if (getenv('AUTH') === 'header') {
    unset($_SERVER['HTTP_AUTHORIZATION'], $_SERVER['PHP_AUTH_USER'], $_SERVER['PHP_AUTH_PW']);
    if (isset($_SERVER['HTTP_X_REMOTE_USER'])) {
        $_SERVER['AUTH_TYPE'] = 'lab';
        $_SERVER['REMOTE_USER'] = $_SERVER['HTTP_X_REMOTE_USER'];
    }
}
$_SERVER['SCRIPT_NAME'] = '/caldav.php';
$_SERVER['PATH_INFO'] = preg_replace('{^/caldav\.php}', '', rawurldecode(explode('?', $_SERVER['REQUEST_URI'], 2)[0]));
chdir($_SERVER['DOCUMENT_ROOT']);
require 'caldav.php';
