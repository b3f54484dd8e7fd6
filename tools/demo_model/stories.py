"""Small English stories from a template grammar.

A story is an opening, one of the plots below and an ending. A plot is a list of beats; a beat is a list of variants
that mean the same and say it differently. Slots such as {name} or {thing} are filled once per story, so that people,
pronouns, objects and places stay the same from the first line to the last.
"""

GIRLS = ["Lily", "Anna", "Mia", "Rose", "Clara", "Emma", "Nora", "Ella", "Ruby", "Ivy"]
BOYS = ["Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Finn", "Oscar", "Hugo", "Tim"]
ANIMALS = ["fox", "rabbit", "bear", "mouse", "frog", "bird", "cat", "dog", "duck", "turtle", "squirrel", "goat"]
TRAITS = ["little", "young", "kind", "brave", "curious", "shy", "clever", "happy"]
FRIEND_TRAITS = ["old", "wise", "friendly", "gentle", "funny", "small"]
HOMES = ["in a small village", "in a little house by the sea", "near a deep forest", "at the edge of a green field",
         "on a quiet farm", "in a red house on a hill", "in a big city", "beside a clear river"]
PLACES = ["the forest", "the garden", "the park", "the river", "the old bridge", "the hill", "the market", "the lake",
          "the beach", "the barn"]
THINGS = ["ball", "kite", "book", "hat", "boat", "key", "bell", "drum", "lamp", "box", "ring", "scarf"]
COLORS = ["red", "blue", "green", "yellow", "white", "golden", "purple", "orange"]
FOODS = ["bread", "soup", "cake", "apple pie", "honey", "cheese", "berries", "nuts"]
SKILLS = ["swim", "dance", "sing", "draw", "read", "climb trees", "ride a bike", "play the drum"]
WEATHERS = [("sunny", "the sun was warm and bright"), ("rainy", "the rain fell on the roof"),
            ("windy", "the wind blew through the trees"), ("snowy", "the snow was white and soft"),
            ("cold", "the air was cold and clear"), ("foggy", "the fog was thick and gray")]
SEEDS = ["a sunflower", "a pumpkin", "an apple tree", "a rose", "a carrot", "a bean"]
NOISES = [("a soft cry", "a kitten"), ("a loud splash", "a fish"), ("a strange knock", "a woodpecker"),
          ("a tiny squeak", "a mouse"), ("a low hum", "a bee"), ("a sad song", "a bird")]
FEARS = [("the dark", "The dark is only the day with its eyes closed"),
         ("the deep water", "The water will hold you if you stay calm"),
         ("the thunder", "The thunder is only a big drum in the sky"),
         ("the tall tree", "You only have to climb one branch at a time"),
         ("the big dog", "The big dog only wants to play")]

OPENINGS = [
    "Once upon a time, there was a {trait} {kind} named {name}. {He} lived {home}.",
    "Once upon a time, a {trait} {kind} named {name} lived {home}.",
    "Once upon a time, {home}, there lived a {trait} {kind}. {His} name was {name}.",
    "Once upon a time there was a {kind} who lived {home}. {His} name was {name}, and {he} was very {trait2}.",
    "There once was a {trait} {kind} named {name} who lived {home}.",
    "{name} was a {trait} {kind} who lived {home}.",
    "Long ago, a {trait} {kind} named {name} lived {home}.",
]
MORNINGS = [
    "One {weather} day, {name} went to {place}.",
    "One {weather} morning, {name} walked to {place} because {weather_says}.",
    "One day, {name} wanted to go to {place}. It was {weather}, and {weather_says}.",
    "It was a {weather} morning, and {weather_says}. {name} went out to {place}.",
    "One morning, {name} woke up early and ran to {place}.",
]
LOST = [
    ["{name} had a {color} {thing}. {He} loved it very much.",
     "{His} favorite toy was a {color} {thing}.",
     "{He} always carried a {color} {thing} with {him}."],
    MORNINGS,
    ["But when {he} came home, the {thing} was gone.",
     "Suddenly, {he} saw that the {thing} was not there.",
     "After a while, {he} could not find the {color} {thing} anywhere."],
    ["{name} was very sad and began to cry.", "{name} looked under every stone, but {he} did not find it.",
     '"Oh no! Where is my {thing}?" {he} cried.'],
    ["Then {he} met a {ftrait} {friend} named {fname}.", "A {ftrait} {friend} named {fname} heard {him}.",
     "Just then, a {ftrait} {friend} came by. The {friend} was called {fname}."],
    ['"Do not cry," said {fname}. "I will help you look for it."',
     '"What is wrong?" asked {fname}. "I lost my {thing}," said {name}. "Let us look together," said {fname}.',
     '"I can help you," said the {friend}. "Four eyes are better than two."'],
    ["They looked and looked. At last, {fname} found the {color} {thing} near {place2}.",
     "They went to {place2} together. There, in the grass, was the {color} {thing}.",
     "The {friend} looked behind a big tree near {place2} and found the {thing}."],
    ["{name} was so happy that {he} jumped up and down. \"Thank you!\" {he} said.",
     '"Thank you, {fname}!" said {name} with a big smile.',
     "{name} laughed and gave the {friend} a big hug."],
]
SHARE = [
    ["{name} had some {food} for lunch.", "{His} mother gave {him} some {food} to eat.",
     "{name} was carrying {food} in a {color} basket."],
    MORNINGS,
    ["On the way, {he} met a {ftrait} {friend} named {fname}.",
     "There {he} saw a {ftrait} {friend}. It was {fname}."],
    ['"I am so hungry," said {fname}. "I have not eaten all day."',
     "{fname} looked tired and hungry.", "{fname} was sad because there was nothing to eat."],
    ["{name} looked at the {food}. There was not much, but {he} wanted to help.",
     "{name} was hungry too, but {he} thought for a moment.", "At first, {name} did not want to share."],
    ['"Here, take some of my {food}," said {name}. "We can share."',
     "So {he} gave half of the {food} to {fname}.", '"Come and eat with me," said {name}. "There is enough for two."'],
    ["They sat down under a tree and ate together.", "They ate the {food} and talked until the sun went down.",
     "The {food} tasted better than ever, because they ate it together."],
    ["The next day, {fname} came back with a {color} {thing} for {name}.",
     '"You are a good friend," said {fname}. "I will never forget this."',
     "From that day on, {fname} always kept a place for {name} by the fire."],
]
LEARN = [
    ["{name} wanted to learn how to {skill}.", "More than anything, {name} wanted to {skill}.",
     "All the others could {skill}, but {name} could not."],
    MORNINGS,
    ["{He} tried to {skill}, but it was too hard.", "{He} tried once, and {he} tried twice, but {he} could not do it.",
     "{name} tried very hard, but {he} fell down."],
    ['"I will never learn it," said {name}.', "{name} felt sad and sat down on a stone.",
     '"It is too hard for me," {he} said with a sigh.'],
    ["A {ftrait} {friend} named {fname} was watching.", "Then a {ftrait} {friend} named {fname} came to {him}.",
     "{fname}, a {ftrait} {friend}, sat down next to {him}."],
    ['"I can show you how to {skill}," said {fname}. "But you must try every day."',
     '"Do not give up," said the {friend}. "I could not {skill} at first, too."',
     '"Start slowly," said {fname}. "One small step, and then one more."'],
    ["So {name} tried again and again, every day.", "Every morning, {name} and {fname} met at {place}.",
     "{name} listened and tried again. It was a little better this time."],
    ["After many days, {name} could {skill} better than anyone.", "And one day, {name} could {skill} at last!",
     'At last {he} could do it. "Look, {fname}! I can {skill}!" {he} shouted.'],
]
FEAR = [
    ["{name} was afraid of {fear}.", "There was only one thing that {name} did not like. {He} was afraid of {fear}."],
    MORNINGS,
    ["Soon {he} heard a call for help. It was {fname}, a {ftrait} {friend}.",
     "There {he} saw {fname}, a {ftrait} {friend}, who was in trouble."],
    ["{name} wanted to help, but {he} was too scared of {fear}.",
     "{name} stood still. {His} heart was beating fast because of {fear}.",
     '"I cannot go there," said {name}. "I am afraid of {fear}."'],
    ["Then {he} remembered what {his} {parent} always said: \"{fear_advice}.\"",
     "{name} thought of the words of {his} {parent}: \"{fear_advice}.\""],
    ["{He} took a deep breath and went on.", "So {he} closed {his} eyes, counted to three, and ran.",
     "Slowly, step by step, {he} came closer."],
    ["{He} took {fname} by the hand, and together they walked home.",
     "{He} pulled {fname} out, and both of them were safe.",
     "Soon the {friend} was free, and they both began to laugh."],
    ['"You are very brave," said {fname}. After that, {name} was not afraid of {fear} anymore.',
     "From that day on, {name} was not afraid of {fear} anymore."],
]
GARDEN = [
    ["{name} found a small seed near {place}.", "A {ftrait} {friend} named {fname} gave {name} a small seed.",
     "{His} {parent} gave {him} a small seed."],
    ['"What will it be?" asked {name}.', "{name} wanted to see it grow.",
     '"I will take good care of you," {he} said to it.'],
    ["{He} put the seed into the ground and gave it water.",
     "So {he} made a hole in the garden and put the seed in it.",
     "{name} planted it in a sunny place and gave it water every day."],
    ["For many days, nothing happened.", "{He} waited one day, two days, three days. Nothing happened.",
     "The days were long, and the ground was still empty."],
    ['"Maybe it is asleep," said {fname}. "You must wait a little longer."', "But {name} did not give up.",
     "{name} was a little sad, but {he} did not stop."],
    ["Then, one {weather} morning, there was a small green leaf.",
     "One morning, a tiny green leaf came out of the ground.",
     "After the rain, something green looked out of the ground."],
    ["It grew and grew, and soon it was {seed}.", "The leaf grew taller every day, until it was {seed}.",
     "In the summer, everyone could see what it was. It was {seed}!"],
    ["{name} was proud, and all {his} friends came to see it.", "{name} danced around it and sang a song.",
     '"You waited, and so it grew," said {his} {parent}.'],
]
NOISE = [
    ["One night, {name} heard {noise}.", "One evening, {name} could not sleep because {he} heard {noise}.",
     "When {name} was playing near {place}, {he} heard {noise}."],
    ['"What is that?" {he} asked.', "{He} was a little afraid, but {he} wanted to know what it was.",
     '"Is it a ghost?" {he} asked {his} {parent}. "There are no ghosts," said {his} {parent}.'],
    ["{He} took a lamp and went outside.", "{name} and {fname}, a {ftrait} {friend}, went to look for it.",
     "{He} walked slowly to {place2}."],
    ["The noise came from behind a big stone.", "There it was again. It came from under the old tree.",
     "It came from the other side of the {color} door."],
    ["There {he} saw {noisemaker}. It was lost and alone.", "It was not a ghost at all. It was only {noisemaker}!",
     "And what did {he} find there? It was {noisemaker}."],
    ["{name} smiled and was not afraid anymore.", '"Hello, little one," said {name} softly.',
     "{name} laughed. \"You gave me a scare!\" {he} said."],
    ["{He} gave it some {food} and sat with it until morning.", "{He} helped it to find the way home.",
     "{He} took it home and kept it warm."],
]
BUILD = [
    ["{name} wanted to make a {color} {thing} for {his} {parent}.",
     "{name} had an idea. {He} wanted to make a {color} {thing}.",
     "It was soon the birthday of {his} {parent}, and {name} wanted to make a {thing}."],
    ["{He} went to {place} to find some wood.", "{He} took some paper, some wood and some string.",
     "First, {he} looked for everything {he} needed near {place}."],
    ["{name} worked all day, but the {thing} broke.", "But the wind came and broke it.",
     "When it was almost done, it fell down and broke."],
    ['"Now I must start again," said {name}.', "{name} was angry, but only for a moment.",
     "{name} sat down and felt sad."],
    ["Then {fname}, a {ftrait} {friend}, came to help.", "A {ftrait} {friend} named {fname} saw it and had an idea.",
     "{fname}, the {ftrait} {friend}, brought some more string."],
    ["Together they worked until the evening.", "One held the wood, and the other tied the string.",
     "This time, they worked slowly and with care."],
    ["At last the {color} {thing} was ready, and it was beautiful.", "In the end, they had the best {thing} of all.",
     "The new {thing} was even better than the first one."],
    ['"Did you make this for me?" asked {his} {parent}. "It is the best gift of all!"',
     "{His} {parent} was so happy that {name} felt warm inside.", '"We made it together," said {name} proudly.'],
]
RACE = [
    ["One day, there was a race from {place} to {place2}.", "Every summer, there was a big race at {place}."],
    ["{name} wanted to win the race.", "{name} had never won a race before, but {he} wanted to try.",
     '"I am the fastest of all," said {name}.'],
    ["{fname}, a {ftrait} {friend}, wanted to run too.", "The {ftrait} {friend} {fname} was also there."],
    ["They started to run, and {name} was the first.", "One, two, three, go! {name} ran as fast as {he} could.",
     "At first, {name} was far behind the others."],
    ["Then {he} heard a cry. {fname} had fallen down.", "But {fname} slipped on the wet grass and could not get up.",
     "Suddenly, {fname} stepped on a stone and sat down."],
    ["{name} stopped. {He} could win now, but {he} did not want to leave a friend.",
     "{name} turned around and ran back to help.",
     '"Go on without me," said {fname}. "No," said {name}, "we go together."'],
    ["So they walked over the line together, hand in hand.",
     "They were the last ones at {place2}, but everyone cheered.",
     "Together they came to {place2}, slowly, but with a smile."],
    ["They did not win the race, but they won a friend.", "And {name} got a {color} {thing} for being so kind.",
     '"You are the real winner," said {his} {parent}.'],
]
PLOTS = [LOST, SHARE, LEARN, FEAR, GARDEN, NOISE, BUILD, RACE]
ENDINGS = [
    "They were friends for ever.", "And they lived happily ever after.", "It was a very good day.",
    "That night, {name} slept well and had sweet dreams.", "Then {name} went home and told {his} {parent} everything.",
    "{name} never forgot that day.", "And everyone was happy.",
    "{name} learned that it is good to be kind.", "{name} learned that friends help each other.",
    "{name} learned that it is good to try again.", "The end.",
]


def _fill_slots(rng, kind=None):
    """One value for each slot; the two animals and the two places of a story are never the same."""
    is_girl = rng.random() < 0.5
    person = rng.random() < 0.5 if kind is None else False
    animal, friend = rng.sample(ANIMALS, 2)
    if kind is not None:
        animal, friend = kind, rng.choice([a for a in ANIMALS if a != kind])
    name = rng.choice(GIRLS if is_girl else BOYS)
    fname = rng.choice([n for n in GIRLS + BOYS if n != name])
    trait, trait2 = rng.sample(TRAITS, 2)
    weather, weather_says = rng.choice(WEATHERS)
    place, place2 = rng.sample(PLACES, 2)
    noise, noisemaker = rng.choice(NOISES)
    fear, fear_advice = rng.choice(FEARS)
    he, his, him = ("she", "her", "her") if is_girl else ("he", "his", "him")
    return dict(
        name=name, fname=fname, kind=("girl" if is_girl else "boy") if person else animal, friend=friend,
        trait=trait, trait2=trait2, ftrait=rng.choice(FRIEND_TRAITS), home=rng.choice(HOMES), place=place,
        place2=place2, thing=rng.choice(THINGS), color=rng.choice(COLORS), food=rng.choice(FOODS),
        skill=rng.choice(SKILLS), weather=weather, weather_says=weather_says, seed=rng.choice(SEEDS), noise=noise,
        noisemaker=noisemaker, fear=fear, fear_advice=fear_advice,
        parent=rng.choice(["mother", "father", "grandmother"]),
        he=he, He=he.capitalize(), his=his, His=his.capitalize(), him=him)


def _fix_articles(text):
    """Turns "a old fox" into "an old fox": the slots do not know what follows their article."""
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def make_story(rng, kind=None):
    """A whole story, about a `kind` of animal if one is named."""
    slots = _fill_slots(rng, kind)
    plot = rng.choice(PLOTS)
    lines = [rng.choice(OPENINGS)] + [rng.choice(beat) for beat in plot] + [rng.choice(ENDINGS)]
    sentences = [line.format(**slots) for line in lines]
    cut = rng.randint(3, 5)
    paragraphs = [" ".join(sentences[:cut]), " ".join(sentences[cut:])] if rng.random() < 0.5 else [" ".join(sentences)]
    return _fix_articles("\n\n".join(paragraphs))
