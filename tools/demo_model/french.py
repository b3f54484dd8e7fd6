"""Simple French sentences with agreement of gender, in short texts about one person."""

# (name, subject pronoun)
PEOPLE = [("Marie", "elle"), ("Sophie", "elle"), ("Camille", "elle"), ("Julie", "elle"), ("Léa", "elle"),
          ("Pierre", "il"), ("Paul", "il"), ("Louis", "il"), ("Antoine", "il"), ("Hugo", "il")]
# (noun with indefinite article, with definite article, gender)
ANIMALS = [("un chat", "le chat", "m"), ("un chien", "le chien", "m"), ("un oiseau", "l'oiseau", "m"),
           ("un lapin", "le lapin", "m"), ("une souris", "la souris", "f"), ("une vache", "la vache", "f"),
           ("une poule", "la poule", "f"), ("un renard", "le renard", "m"), ("une grenouille", "la grenouille", "f")]
THINGS = [("un livre", "le livre", "m"), ("un chapeau", "le chapeau", "m"), ("un vélo", "le vélo", "m"),
          ("une robe", "la robe", "f"), ("une clé", "la clé", "f"), ("une voiture", "la voiture", "f"),
          ("un bateau", "le bateau", "m"), ("une lettre", "la lettre", "f"), ("une chaise", "la chaise", "f")]
# (masculine, feminine); all of them follow the noun.
COLORS = [("rouge", "rouge"), ("bleu", "bleue"), ("vert", "verte"), ("noir", "noire"), ("blanc", "blanche"),
          ("jaune", "jaune")]
FURS = [("noir", "noire"), ("blanc", "blanche"), ("gris", "grise"), ("brun", "brune")]
MOODS = [("content", "contente"), ("fatigué", "fatiguée"), ("triste", "triste"), ("heureux", "heureuse"),
         ("gentil", "gentille"), ("calme", "calme")]
FOODS = ["du pain", "une pomme", "du fromage", "de la soupe", "un gâteau", "des fraises", "une tarte", "du chocolat"]
DRINKS = ["de l'eau", "du lait", "un café", "du thé", "un jus d'orange"]
PLACES = ["dans le jardin", "dans la maison", "à l'école", "au marché", "au bord de la mer", "dans la forêt",
          "sur la place", "près de la rivière", "dans la cuisine"]
CITIES = ["à Paris", "à Lyon", "dans un petit village", "à la campagne", "près de Bordeaux", "dans une grande ville"]
WEATHER = ["Il fait beau.", "Il pleut.", "Il fait froid.", "Le soleil brille.", "Il y a du vent.", "La neige tombe.",
           "Le ciel est bleu."]
TIMES = ["Le matin", "Le soir", "L'après-midi", "Chaque jour", "Aujourd'hui", "Le dimanche"]
FAMILY = ["sa mère", "son père", "sa sœur", "son frère", "son ami", "sa grand-mère"]

OPENINGS = [
    "Il était une fois {girl} qui s'appelait {name}. {Il} habitait {city}.",
    "{name} est {girl}. {Il} habite {city}.",
    "Voici {name}. {Il} habite {city} avec {family}.",
    "{name} habite {city}.",
]
SENTENCES = [
    ["{time}, {il} mange {food} et boit {drink}.", "{Il} aime manger {food}.", "{name} prépare {food} pour {family}.",
     "{time}, {name} achète {food} au marché."],
    ["{Il} a {animal} {fur}.", "{name} a {animal} qui est très {mood_animal}.",
     "{The_animal} de {name} dort {place}."],
    ["{The_animal} joue {place} avec {name}.", "{The_animal} court {place}.", "{name} cherche {the_animal} {place}."],
    ["{name} trouve {thing} {color} {place}.", "{Il} cherche {the_thing} de {family}.",
     "{family_cap} donne {thing} {color} à {name}."],
    ["{weather} {name} est {mood}.", "{weather} {time}, {il} va se promener.", "{weather} {name} reste {place}."],
    ["{name} est {mood}, parce que {the_animal} est là.", "{Il} n'est pas {mood}, mais {il} chante.",
     "{Il} lit une histoire à {family}."],
    ["« Où est {the_animal} ? » demande {name}.", "« Je suis {mood} », dit {name}.",
     "« Merci ! » dit {name} à {family}.", "« Regarde {the_thing} ! » dit {name}."],
]
ENDINGS = ["C'est une belle journée.", "Puis {name} rentre à la maison.", "Bonne nuit, {name} !",
           "Et tout le monde est content.", "{Il} est très {mood}.", "À demain, {name} !"]

# (English, French) for the chat domain.
PHRASES = [("good morning", "Bonjour."), ("good night", "Bonne nuit."), ("thank you", "Merci."),
           ("the cat sleeps", "Le chat dort."), ("the dog runs", "Le chien court."), ("it is raining", "Il pleut."),
           ("I am happy", "Je suis content."), ("the sky is blue", "Le ciel est bleu."),
           ("where is the cat", "Où est le chat ?"), ("I like bread", "J'aime le pain."),
           ("the sun is shining", "Le soleil brille."), ("see you tomorrow", "À demain !")]


def _capitalize(text):
    return text[0].upper() + text[1:]


def make_french(rng):
    """A short text about one person, with all agreements right."""
    name, pronoun = rng.choice(PEOPLE)
    feminine = pronoun == "elle"
    animal, the_animal, animal_gender = rng.choice(ANIMALS)
    thing, the_thing, thing_gender = rng.choice(THINGS)
    fur, color = rng.choice(FURS), rng.choice(COLORS)
    mood, mood_animal = rng.choice(MOODS), rng.choice(MOODS)
    family = rng.choice(FAMILY)
    girl = rng.choice(["une petite fille", "une fille", "une jeune fille"] if feminine
                      else ["un petit garçon", "un garçon", "un jeune garçon"])

    def slots():
        # Times, places and the weather may change from sentence to sentence; who and what may not.
        return dict(name=name, il=pronoun, Il=pronoun.capitalize(), girl=girl, city=rng.choice(CITIES), family=family,
                    family_cap=_capitalize(family), time=rng.choice(TIMES), food=rng.choice(FOODS),
                    drink=rng.choice(DRINKS), animal=animal, the_animal=the_animal, The_animal=_capitalize(the_animal),
                    fur=fur[animal_gender == "f"], mood=mood[feminine], mood_animal=mood_animal[animal_gender == "f"],
                    place=rng.choice(PLACES), thing=thing, the_thing=the_thing,
                    color=color[thing_gender == "f"], weather=rng.choice(WEATHER))

    groups = rng.sample(SENTENCES, rng.randint(3, 6))
    lines = [rng.choice(OPENINGS)] + [rng.choice(group) for group in groups] + [rng.choice(ENDINGS)]
    return " ".join(line.format(**slots()) for line in lines)
