"""Xandikos for several users: xandikos_users.py FOLDER PORT.

Stock Xandikos has one principal and no login. Here each request's X-Remote-User names the principal, which is made when first seen. Like stock
Xandikos it checks no access: whoever stands in front must keep a user to /USER/.
"""
import logging
import sys

from aiohttp import web
from xandikos.web import WELLKNOWN_DAV_PATHS, RedirectDavHandler, XandikosApp, XandikosBackend


class Users:
    def __init__(self, folder):
        self.backend = XandikosBackend(folder)
        self.dav = XandikosApp(self.backend, current_user_principal="/%(REMOTE_USER)s/")

    async def answer(self, request):
        user = request.headers.get("X-Remote-User", "")
        if not user or "/" in user or user.startswith("."):
            return web.Response(status=401, text="X-Remote-User must name the user\n")
        home = "/%s/" % user
        if self.backend.get_resource(home) is None:
            self.backend.create_principal(home, create_defaults=True)
        self.backend._mark_as_principal(home)  # known only in memory, so again after a restart
        response = await self.dav._handle_request(request, {"SCRIPT_NAME": "/", "REMOTE_USER": user})
        return response.for_aiohttp()


def main(folder, port):
    logging.basicConfig(level=logging.INFO)
    app = web.Application(client_max_size=64 << 20)
    for path in WELLKNOWN_DAV_PATHS:
        app.router.add_route("*", path, RedirectDavHandler("/").__call__)
    app.router.add_route("*", "/{path_info:.*}", Users(folder).answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


main(sys.argv[1], int(sys.argv[2]))
