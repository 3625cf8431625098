"""A site by Django, with a table of notes in SQLite."""

import django
from django.conf import settings
from watched import FILM, FOLDER, Watched, measure, pieces, worker

settings.configure(
    DEBUG=False,
    SECRET_KEY="not so secret",
    ALLOWED_HOSTS=["127.0.0.1", "site.example"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": FOLDER / "notes.sqlite",
            # Writers wait for each other, whichever worker or thread they are in.
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
            "CONN_MAX_AGE": 60,
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["stderr"], "level": "ERROR"}},
    },
)
django.setup()

# What follows needs the settings.
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections, models  # noqa: E402
from django.http import (  # noqa: E402
    FileResponse,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token  # noqa: E402
from django.shortcuts import redirect  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402

PAGE = engines["django"].from_string("<p>Hello, {{ name }}!</p>\n")


class Note(models.Model):
    text = models.CharField(max_length=100)

    class Meta:
        app_label = "notes"

    def __str__(self):
        return self.text


def hello(_request, name):
    return HttpResponse(PAGE.render({"name": name}))


@csrf_exempt
def form(request):
    answer = JsonResponse(
        {"name": request.POST["name"], "tags": request.POST.getlist("tag")},
    )
    answer.set_cookie("seen", "yes")
    answer.set_cookie("last", request.POST["name"], httponly=True)
    return answer


def cookies(request):
    return JsonResponse(request.COOKIES)


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


@csrf_exempt
def upload(request):
    film = request.FILES["film"]
    return JsonResponse({"title": request.POST["title"], "name": film.name, **measure(film)})


@csrf_exempt
def raw(request):
    return JsonResponse(measure(request))


def stream(_request):
    return StreamingHttpResponse(pieces(), content_type="text/plain")


def download(_request):
    return FileResponse(FILM.open("rb"), as_attachment=True)


def old(_request):
    return redirect("/hello/new")


def who(request):
    return JsonResponse(
        {
            "address": request.META["REMOTE_ADDR"],
            "secure": request.is_secure(),
            "host": request.get_host(),
            "url": request.build_absolute_uri(),
        }
    )


def fail(request):
    raise LookupError(f"a fault of Django's site: {request.META['QUERY_STRING']}")


@csrf_exempt
def any_method(request):
    return JsonResponse({"method": request.method, **worker()})


def notes(request):
    """Add a note, if its sender knows the token of this very site, and count them."""
    if request.method == "POST":
        Note.objects.create(text=request.POST["text"])
    return JsonResponse({"notes": Note.objects.count(), "token": get_token(request)})


urlpatterns = [
    path("hello/<str:name>", hello),
    path("form", form),
    path("cookies", cookies),
    path("visits", visits),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("download", download),
    path("old", old),
    path("who", who),
    path("fail", fail),
    path("any", any_method),
    path("notes", notes),
]


def create_application():
    """Return the site, its table made: once, in the master, who leaves no connection behind."""
    with connections["default"].schema_editor() as editor:
        if Note._meta.db_table not in connections["default"].introspection.table_names():
            editor.create_model(Note)
    connections.close_all()
    return Watched(get_wsgi_application())
