"""A site by Flask."""

from flask import Flask, Response, jsonify, redirect, render_template_string, request, send_file
from flask import session as flask_session
from watched import FILM, Watched, measure, pieces, worker

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

site = Flask(__name__)
site.secret_key = "not so secret"


@site.get("/hello/<name>")
def hello(name):
    return render_template_string("<p>Hello, {{ name }}!</p>\n", name=name)


@site.post("/form")
def form():
    answer = jsonify(name=request.form["name"], tags=request.form.getlist("tag"))
    answer.set_cookie("seen", "yes")
    answer.set_cookie("last", request.form["name"], httponly=True)
    return answer


@site.get("/cookies")
def cookies():
    return jsonify(dict(request.cookies))


@site.get("/visits")
def visits():
    flask_session["visits"] = flask_session.get("visits", 0) + 1
    return jsonify(visits=flask_session["visits"])


@site.post("/upload")
def upload():
    film = request.files["film"]
    told = measure(film)
    return jsonify(title=request.form["title"], name=film.filename, **told)


@site.put("/raw")
def raw():
    return jsonify(measure(request.stream))


@site.get("/stream")
def stream():
    return Response(pieces(), mimetype="text/plain")


@site.get("/download")
def download():
    return send_file(FILM, download_name="film.bin", as_attachment=True)


@site.get("/old")
def old():
    return redirect("/hello/new")


@site.get("/who")
def who():
    return jsonify(
        address=request.remote_addr, secure=request.is_secure, host=request.host, url=request.url
    )


@site.get("/fail")
def fail():
    raise LookupError(f"a fault of Flask's site: {request.query_string.decode()}")


@site.route("/any", methods=METHODS)
def any_method():
    return jsonify(method=request.method, **worker())


application = Watched(site)
