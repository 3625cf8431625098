"""A site by Falcon."""

import html

import falcon
from watched import FILM, FOLDER, Watched, measure, pieces, worker


class Hello:
    def on_get(self, _request, response, name):
        response.content_type = falcon.MEDIA_HTML
        response.text = f"<p>Hello, {html.escape(name)}!</p>\n"


class Form:
    def on_post(self, request, response):
        given = request.get_media()
        tags = given.get("tag", [])
        response.media = {
            "name": given["name"],
            "tags": tags if isinstance(tags, list) else [tags],
        }
        response.set_cookie("seen", "yes", path="/", secure=False)
        response.set_cookie("last", given["name"], path="/", secure=False, http_only=True)


class Cookies:
    def on_get(self, request, response):
        response.media = dict(request.cookies)


class Visits:
    def on_get(self, request, response):
        count = 1 + int(request.cookies.get("visits", 0))
        response.set_cookie("visits", str(count), secure=False)
        response.media = {"visits": count}


class Upload:
    def on_post(self, request, response):
        told = {}
        for part in request.get_media():
            if part.name == "title":
                told["title"] = part.text
            else:
                told |= {"name": part.filename} | measure(part.stream)
        response.media = told


class Raw:
    def on_put(self, request, response):
        response.media = measure(request.bounded_stream)


class Stream:
    def on_get(self, _request, response):
        response.content_type = falcon.MEDIA_TEXT
        response.stream = pieces()


class Download:
    def on_get(self, _request, response):
        response.content_type = "application/octet-stream"
        response.downloadable_as = "film.bin"
        response.set_stream(FILM.open("rb"), FILM.stat().st_size)


class Old:
    def on_get(self, _request, _response):
        raise falcon.HTTPFound("/hello/new")


class Who:
    def on_get(self, request, response):
        response.media = {
            "address": request.remote_addr,
            "secure": request.scheme == "https",
            "host": request.netloc,
            "url": request.url,
        }


class Fail:
    def on_get(self, request, _response):
        raise LookupError(f"a fault of Falcon's site: {request.query_string}")


class Any:
    def on_get(self, request, response):
        response.media = {"method": request.method, **worker()}

    on_post = on_put = on_patch = on_delete = on_get


site = falcon.App()
site.add_route("/hello/{name}", Hello())
for path, resource in {
    "/form": Form(),
    "/cookies": Cookies(),
    "/visits": Visits(),
    "/upload": Upload(),
    "/raw": Raw(),
    "/stream": Stream(),
    "/download": Download(),
    "/old": Old(),
    "/who": Who(),
    "/fail": Fail(),
    "/any": Any(),
}.items():
    site.add_route(path, resource)
site.add_static_route("/files", FOLDER)

application = Watched(site)
