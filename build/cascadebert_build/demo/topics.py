"""What the demo's reviews are about: the nouns, none of which training and held-out rows share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Domain:
    """Things that are reviewed, and the parts of them that a review may mention.

    Attributes:
        genre: One of `lexicon.GENRES`; it decides which adjectives and which openers fit.
        wholes: Singular nouns for the thing that the verdict is about.
        parts: Singular nouns for its parts and its people.
    """

    genre: str
    wholes: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Topics:
    """All the nouns of one side of the split.

    Attributes:
        domains: What is reviewed.
        people: Acquaintances of the reviewer ("my …").
        occasions: What else happened in the reviewer's life ("a …").
        name_endings: How invented proper names end: with a consonant or with a vowel.
    """

    domains: tuple[Domain, ...]
    people: tuple[str, ...]
    occasions: tuple[str, ...]
    name_endings: tuple[str, ...]

    def words(self) -> frozenset[str]:
        """Every single word of every noun, in lower case."""
        nouns = [*self.people, *self.occasions]
        for domain in self.domains:
            nouns += [*domain.wholes, *domain.parts]
        return frozenset(word for noun in nouns for word in noun.lower().split())


def _nouns(text: str) -> tuple[str, ...]:
    return tuple(noun.strip() for noun in text.split(","))


TRAIN: Final = Topics(
    domains=(
        Domain(
            "place",
            _nouns("hotel, hostel, guesthouse, motel, resort, inn, chalet"),
            _nouns("lobby, bedroom, mattress, breakfast, receptionist, bathroom, balcony, porter"),
        ),
        Domain(
            "place",
            _nouns("restaurant, diner, pizzeria, bistro, canteen, pub, steakhouse"),
            _nouns("waiter, menu, terrace, kitchen, cellar, jukebox, chef, waitress, bartender"),
        ),
        Domain(
            "place",
            _nouns("castle, cathedral, monument, waterfall, lighthouse, cave, temple"),
            _nouns("ticket office, leaflet, view, staircase, souvenir stall, car park, turret"),
        ),
        Domain(
            "place",
            _nouns("gym, swimming pool, library, cinema, stadium, arcade"),
            _nouns("locker, trainer, lifeguard, seat, librarian, popcorn, usher, changing room"),
        ),
        Domain(
            "place",
            _nouns("bakery, bookshop, supermarket, florist, pharmacy, boutique"),
            _nouns("cashier, till, aisle, trolley, window display, loyalty card, owner"),
        ),
        Domain(
            "food",
            _nouns("soup, curry, burger, omelette, lasagne, salad, steak, casserole, pizza"),
            _nouns("sauce, garnish, crust, portion, seasoning, filling, dressing, cheese"),
        ),
        Domain(
            "food",
            _nouns("cake, pie, latte, sandwich, trifle, sorbet, muffin, croissant, milkshake"),
            _nouns("topping, icing, foam, aroma, pastry, custard, texture, cream, sponge"),
        ),
        Domain(
            "work",
            _nouns("film, movie, thriller, documentary, sequel, comedy, western, trilogy"),
            _nouns("plot, script, soundtrack, acting, dialogue, director, finale, editing, stunt"),
        ),
        Domain(
            "work",
            _nouns("novel, biography, memoir, anthology, paperback, comic, cookbook"),
            _nouns("prologue, narrator, prose, translation, villain, epilogue, heroine, foreword"),
        ),
        Domain(
            "work",
            _nouns("album, concert, recital, mixtape, symphony, ballad, duet"),
            _nouns("singer, drummer, encore, melody, bassline, pianist, violinist, chorus, guitar"),
        ),
        Domain(
            "work",
            _nouns("magazine, newspaper, column, crossword, blog"),
            _nouns("editor, headline, photograph, puzzle page, columnist, horoscope, interviewer"),
        ),
        Domain(
            "product",
            _nouns("phone, laptop, tablet, camera, printer, scanner, monitor"),
            _nouns("battery, screen, keyboard, charger, speaker, manual, packaging, casing"),
        ),
        Domain(
            "product",
            _nouns("kettle, toaster, blender, hoover, fridge, dishwasher, freezer, juicer"),
            _nouns("lid, handle, cord, switch, motor, button, thermostat, timer, nozzle"),
        ),
        Domain(
            "product",
            _nouns("jacket, sweater, backpack, raincoat, suitcase, scarf, wallet, umbrella"),
            _nouns("zip, lining, fabric, stitching, strap, pocket, collar, sleeve, buckle"),
        ),
        Domain(
            "product",
            _nouns("tent, canoe, fishing rod, sleeping bag, compass, lantern"),
            _nouns("pole, paddle, reel, groundsheet, rope, pump, carrying case"),
        ),
        Domain(
            "product",
            _nouns("hammer, drill, ladder, lawnmower, chainsaw, wheelbarrow"),
            _nouns("grip, blade, rung, engine, wheel, toolbox, warranty"),
        ),
        Domain(
            "product",
            _nouns("teddy bear, doll, jigsaw, board game, train set, kite"),
            _nouns("ribbon, rulebook, box, dice, string, paint, glue"),
        ),
        Domain(
            "experience",
            _nouns("tour, cruise, safari, excursion, picnic, hike, regatta"),
            _nouns("guide, bus, itinerary, route, scenery, captain, lunch, driver"),
        ),
        Domain(
            "experience",
            _nouns("course, workshop, seminar, lecture, webinar, lesson, tutorial"),
            _nouns("teacher, handout, classroom, schedule, textbook, tutor, syllabus, professor"),
        ),
        Domain(
            "experience",
            _nouns("massage, manicure, facial, sauna, pedicure"),
            _nouns("therapist, robe, playlist, towel, masseur, candle, lotion"),
        ),
        Domain(
            "experience",
            _nouns("conference, convention, auction, gala, banquet"),
            _nouns("speech, badge, buffet, auctioneer, moderator, keynote, panel"),
        ),
    ),
    people=_nouns(
        "sister, brother, boss, neighbour, cousin, dentist, colleague, mother, roommate, wife, "
        "doctor, lawyer, teammate, mechanic, grandfather, daughter, son, butcher, hairdresser, "
        "gardener, girlfriend, secretary"
    ),
    occasions=_nouns(
        "working week, car ride, flight, morning, meeting, night, rehearsal, business dinner, "
        "football match, birthday, phone call, walk, wedding, bank visit, graduation, lunch break, "
        "bus ride, election, photo shoot, blind date, housewarming"
    ),
    name_endings=_nouns("n, l, k, th, r, sen, ton, s, ck, m, rd, st"),
)

HELD_OUT: Final = Topics(
    domains=(
        Domain(
            "place",
            _nouns("museum, gallery, aquarium, planetarium, palace"),
            _nouns("cloakroom, curator, entrance, signage, courtyard, attendant"),
        ),
        Domain(
            "place",
            _nouns("campsite, ranch, zoo, playground, vineyard"),
            _nouns("warden, fence, barbecue, pond, orchard, ranger, barn"),
        ),
        Domain(
            "work",
            _nouns("opera, ballet, musical, pantomime, operetta"),
            _nouns("choreography, orchestra, costume, conductor, soprano, tenor, lighting"),
        ),
        Domain(
            "work",
            _nouns("podcast, sitcom, cartoon, miniseries, quiz"),
            _nouns("presenter, jingle, animation, storyline, host, punchline"),
        ),
        Domain(
            "product",
            _nouns("bicycle, scooter, skateboard, tricycle, unicycle"),
            _nouns("saddle, brake, frame, chain, pedal, gearbox, tyre"),
        ),
        Domain(
            "product",
            _nouns("sofa, wardrobe, bookcase, armchair, desk"),
            _nouns("cushion, drawer, hinge, varnish, upholstery, shelf"),
        ),
        Domain(
            "product",
            _nouns("smartwatch, router, drone, projector, microphone"),
            _nouns("firmware, cable, wristband, antenna, remote, lens"),
        ),
        Domain(
            "food",
            _nouns("stew, risotto, dumpling, ramen, pancake, chowder, paella"),
            _nouns("broth, rice, syrup, batter, gravy, relish"),
        ),
        Domain(
            "experience",
            _nouns("retreat, festival, carnival, parade, expedition"),
            _nouns("organiser, marquee, bonfire, campfire, steward, mascot"),
        ),
        Domain(
            "experience",
            _nouns("haircut, perm, shave, makeover"),
            _nouns("barber, stylist, shampoo, mirror, conditioner"),
        ),
    ),
    people=_nouns(
        "uncle, landlord, flatmate, aunt, nephew, accountant, father, grandmother, classmate, "
        "plumber, husband, niece"
    ),
    occasions=_nouns(
        "commute, afternoon, exam, garden party, ferry crossing, ski trip, audition, weekend, "
        "school reunion, christening, debate, cricket final"
    ),
    name_endings=_nouns("a, o, i, ey, ea, ie, io, ia, oo, y"),
)
