import threading

from workers.jobs.capacity import MAX_FOLLOWERS, Capacity


class Scene:
    """Two slots; followers as many as are set; how often a place became free."""

    def __init__(self) -> None:
        self.followers = self.freed = 0
        self.places = Capacity(slots=lambda: 2, followers=lambda: self.followers, on_freed=self._count)

    def _count(self) -> None:
        self.freed += 1


def test_places_are_taken_by_as_many_jobs_as_there_are_slots() -> None:
    places = Scene().places
    places.enter()
    assert not places.are_taken
    places.enter()
    assert places.are_taken
    assert places.jobs == 2


def test_a_place_that_becomes_free_is_told_only_when_all_were_taken() -> None:
    scene = Scene()
    for _ in range(2):
        scene.places.enter()
    scene.places.leave()
    scene.places.leave()
    assert (scene.freed, scene.places.jobs) == (1, 0)


def test_followers_take_no_place_up_to_a_limit() -> None:
    scene = Scene()
    scene.followers = MAX_FOLLOWERS + 1
    for _ in range(MAX_FOLLOWERS + 1):
        scene.places.enter()
    assert not scene.places.are_taken
    scene.places.enter()
    assert scene.places.are_taken


def test_waiting_ends_with_the_last_job_or_with_the_time() -> None:
    places = Scene().places
    places.enter()
    assert not places.wait_until_empty(0.01)
    threading.Timer(0.02, places.leave).start()
    assert places.wait_until_empty(5)
