"""A site by Bottle."""

from bottle import Bottle, redirect, request, response, static_file, template
from watched import FILM, Watched, measure, pieces, worker

SECRET = "not so secret"

site = Bottle()


@site.get("/hello/<name>")
def hello(name):
    return template("<p>Hello, {{name}}!</p>\n", name=name)


@site.post("/form")
def form():
    response.set_cookie("seen", "yes", path="/")
    response.set_cookie("last", request.forms.name, path="/", httponly=True)
    return {"name": request.forms.name, "tags": request.forms.getall("tag")}


@site.get("/cookies")
def cookies():
    return dict(request.cookies)


@site.get("/visits")
def visits():
    count = 1 + (request.get_cookie("visits", 0, secret=SECRET))
    response.set_cookie("visits", count, secret=SECRET)
    return {"visits": count}


@site.post("/upload")
def upload():
    film = request.files.film
    return {"title": request.forms.title, "name": film.raw_filename, **measure(film.file)}


@site.put("/raw")
def raw():
    return measure(request.body)


@site.get("/stream")
def stream():
    response.content_type = "text/plain"
    return pieces()


@site.get("/download")
def download():
    return static_file(FILM.name, root=FILM.parent, download=True)


@site.get("/old")
def old():
    redirect("/hello/new")


@site.get("/who")
def who():
    parts = request.urlparts
    return {
        "address": request.remote_addr,
        "secure": parts.scheme == "https",
        "host": parts.netloc,
        "url": request.url,
    }


@site.get("/fail")
def fail():
    raise LookupError(f"a fault of Bottle's site: {request.query_string}")


@site.route("/any", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def any_method():
    return {"method": request.method, **worker()}


application = Watched(site)
