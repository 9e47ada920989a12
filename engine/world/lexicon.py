"""The words and facts of the little world, as data and nothing else. Every fact here is true in the big world too.

The tables are small on purpose: a model of a few million weights sees each row often enough, in a few minutes, to
know it by heart. How a fact becomes a question, an answer or a story is no concern of this file.
"""

from __future__ import annotations

from typing import NamedTuple


class Country(NamedTuple):
    name: str
    capital: str
    continent: str
    language: str


class Animal(NamedTuple):
    name: str
    sound: str   # the verb: a dog "barks"; "" when the world does not say
    legs: int    # -1: people would argue about it, so the world does not say
    home: str    # with its preposition and article: "in a den"
    young: str


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COUNTRIES = tuple(Country(*row) for row in _rows("""
    France    | Paris      | Europe        | French
    Spain     | Madrid     | Europe        | Spanish
    Italy     | Rome       | Europe        | Italian
    Germany   | Berlin     | Europe        | German
    Portugal  | Lisbon     | Europe        | Portuguese
    Greece    | Athens     | Europe        | Greek
    Poland    | Warsaw     | Europe        | Polish
    Sweden    | Stockholm  | Europe        | Swedish
    Norway    | Oslo       | Europe        | Norwegian
    Denmark   | Copenhagen | Europe        | Danish
    Finland   | Helsinki   | Europe        | Finnish
    Hungary   | Budapest   | Europe        | Hungarian
    Austria   | Vienna     | Europe        | German
    Ireland   | Dublin     | Europe        | English
    England   | London     | Europe        | English
    Russia    | Moscow     | Europe        | Russian
    Ukraine   | Kyiv       | Europe        | Ukrainian
    Turkey    | Ankara     | Asia          | Turkish
    Japan     | Tokyo      | Asia          | Japanese
    China     | Beijing    | Asia          | Chinese
    India     | New Delhi  | Asia          | Hindi
    Korea     | Seoul      | Asia          | Korean
    Thailand  | Bangkok    | Asia          | Thai
    Vietnam   | Hanoi      | Asia          | Vietnamese
    Egypt     | Cairo      | Africa        | Arabic
    Kenya     | Nairobi    | Africa        | Swahili
    Morocco   | Rabat      | Africa        | Arabic
    Ghana     | Accra      | Africa        | English
    Canada    | Ottawa     | North America | English
    Mexico    | Mexico City | North America | Spanish
    Cuba      | Havana     | North America | Spanish
    Brazil    | Brasilia   | South America | Portuguese
    Argentina | Buenos Aires | South America | Spanish
    Chile     | Santiago   | South America | Spanish
    Peru      | Lima       | South America | Spanish
    Australia | Canberra   | Oceania       | English
"""))

ANIMALS = tuple(Animal(name, sound, int(legs), home, young) for name, sound, legs, home, young in _rows("""
    dog       | barks    | 4 | in a kennel       | puppy
    cat       | meows    | 4 | in a house        | kitten
    cow       | moos     | 4 | in a barn         | calf
    horse     | neighs   | 4 | in a stable       | foal
    sheep     | bleats   | 4 | in a field        | lamb
    pig       | oinks    | 4 | in a sty          | piglet
    goat      | bleats   | 4 | on a farm         | kid
    donkey    | brays    | 4 | in a stable       | foal
    lion      | roars    | 4 | in the savanna    | cub
    tiger     | roars    | 4 | in the jungle     | cub
    bear      | growls   | 4 | in a den          | cub
    wolf      | howls    | 4 | in a den          | pup
    fox       | barks    | 4 | in a den          | cub
    mouse     | squeaks  | 4 | in a hole         | pup
    elephant  | trumpets | 4 | in the savanna    | calf
    monkey    | chatters | -1 | in the trees      | infant
    rabbit    |          | 4 | in a burrow       | kit
    deer      |          | 4 | in the forest     | fawn
    beaver    |          | 4 | in a lodge        | kit
    camel     | grunts   | 4 | in the desert     | calf
    frog      | croaks   | 4 | in a pond         | tadpole
    turtle    |          | 4 | in a pond         | hatchling
    crocodile |          | 4 | in a river        | hatchling
    squirrel  | chatters | 4 | in a tree         | kit
    duck      | quacks   | 2 | on a pond         | duckling
    goose     | honks    | 2 | on a lake         | gosling
    hen       | clucks   | 2 | in a coop         | chick
    rooster   | crows    | 2 | in a coop         | chick
    owl       | hoots    | 2 | in a hollow tree  | owlet
    crow      | caws     | 2 | in a nest         | chick
    swan      |          | 2 | on a lake         | cygnet
    eagle     | screams  | 2 | in a nest         | eaglet
    penguin   |          | 2 | on the ice        | chick
    kangaroo  |          | -1 | on the plains     | joey
    bee       | buzzes   | 6 | in a hive         | larva
    ant       |          | 6 | in an anthill     | larva
    butterfly |          | 6 | in the meadow     | caterpillar
    spider    |          | 8 | in a web          | spiderling
    snake     | hisses   | 0 | in the grass      | hatchling
    whale     | sings    | 0 | in the sea        | calf
    shark     |          | 0 | in the sea        | pup
"""))

COLOURED = {thing: colour for colour, things in {
    "red": "a tomato|a strawberry|a cherry|a fire engine|blood|a ruby",
    "yellow": "a banana|a lemon|the sun|butter|a sunflower|corn",
    "green": "grass|a frog|a leaf|a cucumber|a pea|broccoli|an emerald",
    "blue": "the sky|the sea|a blueberry|a sapphire",
    "white": "snow|milk|salt|a swan|a cloud|rice",
    "black": "coal|a crow|the night|tar",
    "orange": "a carrot|a pumpkin|an orange|a fox",
    "brown": "chocolate|coffee|a bear|wood",
    "grey": "an elephant|a mouse|ash|a dolphin",
    "pink": "a pig|a flamingo",
    "purple": "a plum|an eggplant|lavender",
}.items() for thing in things.split("|")}

OPPOSITES = tuple((a, b) for a, b in _rows("""
    big | small
    hot | cold
    fast | slow
    happy | sad
    day | night
    up | down
    old | young
    tall | short
    open | closed
    wet | dry
    full | empty
    light | dark
    hard | soft
    loud | quiet
    rich | poor
    clean | dirty
    early | late
    near | far
    good | bad
    left | right
    in | out
    first | last
    thick | thin
    wide | narrow
    strong | weak
    high | low
    deep | shallow
    sharp | blunt
    sweet | sour
    push | pull
    win | lose
    begin | end
    give | take
    love | hate
    laugh | cry
    buy | sell
    question | answer
    true | false
    alive | dead
    awake | asleep
    black | white
    brave | afraid
    inside | outside
    always | never
    summer | winter
    front | back
    rough | smooth
    safe | dangerous
"""))

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")

CATEGORIES = {
    "animal": _words("dog cat cow horse sheep pig goat lion tiger bear wolf fox mouse elephant monkey rabbit duck owl "
                     "bee frog snake whale shark eagle penguin camel donkey goose spider"),
    "fruit": _words("apple banana cherry grape lemon orange peach pear plum strawberry melon mango kiwi"),
    "vegetable": _words("carrot potato onion cabbage pea bean cucumber pumpkin radish leek turnip"),
    "vehicle": _words("car bus train bicycle truck boat ship plane tram taxi van scooter"),
    "tool": _words("hammer saw screwdriver drill rake shovel axe wrench broom"),
    "musical instrument": _words("piano guitar violin drum flute trumpet harp cello banjo"),
    "piece of clothing": _words("shirt coat hat scarf sock shoe glove dress jacket sweater skirt"),
    "piece of furniture": _words("chair table bed sofa desk shelf bench wardrobe stool"),
    "flower": _words("rose tulip daisy lily sunflower violet poppy"),
}

NAMES = _words("""
    Tom Mia Ben Anna Sam Lily Max Emma Leo Ella Jack Rosa Finn Clara Hugo Nina Oscar Ruby Adam Zoe Peter Maria David
    Sara Lucas Alice Simon Julia Noah Eva Paul Lena Omar Aisha Ravi Priya Chen Mei Kofi Amara Ivan Olga Pablo Lucia
    Hans Greta Kenji Yuki Ali Fatima George Helen Felix Ida Jonas Maya Oliver Sophie Theo Iris Henry Daisy Arthur
    Grace
""")
MORE_NAMES = _words("""
    John James Robert Michael William Richard Thomas Daniel Matthew Anthony Mark Steven Andrew Kevin Brian Edward
    Ronald Jason Ryan Jacob Gary Eric Stephen Larry Justin Scott Frank Raymond Gregory Patrick Alexander Dennis Jerry
    Tyler Aaron Jose Nathan Douglas Zachary Kyle Carl Gerald Keith Roger Jeremy Lawrence Sean Christian Ethan Austin
    Joe Albert Bob Bill Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Karen Lisa Nancy Betty Sandra
    Margaret Ashley Kim Emily Donna Michelle Carol Amanda Melissa Laura Rebecca Cynthia Amy Angela Shirley Brenda
    Pamela Nicole Samantha Katherine Christine Rachel Carolyn Janet Catherine Heather Diane Ruth Joyce Virginia
    Victoria Kelly Lauren Christina Joan Evelyn Judith Megan Andrea Cheryl Hannah Jacqueline Martha Gloria Teresa Ann
    Kathryn Isabella Charlotte Amelia Mila Ada Alan Grant Miles Nora Otto Pia Quinn Rita Stella Tara Ursula Vera
    Walter Xenia Yara Zara Bruno Carla Dora Edgar Fiona Gina Jan Jin Wei Ming Hiro Sora Raj Anil Deepa Sunil Ahmed
    Layla Hassan Yusuf Kwame Zuri Diego Carlos Elena Sofia Marco Luca Giulia Pierre Louis Camille Chloe Lars Ingrid
    Sven Astrid Boris Natasha Dmitri Katya
""")

OBJECTS = _words("""
    ball book key cup hat coin map lamp box pen kite drum doll bell clock spoon basket blanket bottle candle ring rope
    sock toy bag shell stone flag mirror button brush ladder bucket umbrella letter ticket whistle feather
""")
COUNTABLE = _words("""
    apples pears plums cherries lemons oranges eggs cookies cakes books coins pens marbles stickers shells stones
    balls flowers stamps buttons candles cups hats toys cards nuts carrots berries tickets leaves feathers beads
""")
INSIDE = _words("""
    garden kitchen park school library barn forest market office shop tower cellar attic bedroom bathroom hall cave
    castle museum station hospital bakery tent hotel theater church village city jungle desert
""")
STORY_PLACES = {"forest": "in the", "garden": "in the", "park": "in the", "city": "in the", "village": "in the",
                "desert": "in the", "jungle": "in the", "castle": "in the", "cave": "in the", "barn": "in the",
                "kitchen": "in the", "library": "in the", "mountains": "in the", "snow": "in the", "market": "at the",
                "beach": "at the", "lake": "at the", "river": "at the", "school": "at the", "sea": "at the",
                "moon": "on the", "farm": "on the", "island": "on the", "hill": "on the", "train": "on the"}
STORY_ANIMALS = _words("""
    fox owl bear rabbit mouse cat dog horse wolf lion tiger duck frog turtle penguin monkey elephant deer goat pig
    sheep cow hen bee ant spider snake whale goose swan squirrel donkey camel kangaroo butterfly eagle beaver crow
""")
COLOURS = _words("red blue green yellow black white brown pink orange purple grey golden")
PAINTS = _words("red blue green yellow black white brown pink orange purple grey")
MOODS = _words("happy sad tired hungry brave shy kind proud sleepy curious quiet clever lonely cheerful gentle")
FOODS = _words("bread cheese soup pizza rice cake pasta honey pancakes salad noodles chocolate")

# Words for spelling and letters, beside the nouns above.
SPELLING = _words("""
    river window bridge summer winter spring autumn yellow purple orange silver golden planet rocket engine motor
    wheel paper pencil school teacher doctor farmer baker singer dancer painter driver sailor pilot king queen prince
    castle dragon giant wizard monster pirate island ocean water fire earth wind cloud storm thunder rain snow ice sun
    moon star light night morning evening today tomorrow yesterday always never sometimes often under over between
    behind before after again little large small great strong gentle happy funny silly clever honest simple pretty
    lovely kind brave mother father sister brother uncle aunt cousin friend baby child people person family house home
    door wall roof floor room garden flower tree leaf branch root seed grass field forest jungle desert mountain
    valley hill lake pond beach sand shell stone rock metal iron copper glass wood plastic cotton wool silk leather
    rubber bread butter cheese milk honey sugar salt pepper soup salad sandwich pizza pasta rice noodle potato tomato
    carrot onion garlic lemon banana cherry melon peach grape berry apple table chair couch pillow blanket mirror
    candle lamp clock watch bottle basket hammer nail ladder bucket needle thread button pocket jacket sweater shirt
    shoe boot glove hat scarf dress skirt music song dance drum guitar piano violin trumpet letter number word story
    poem picture color circle square triangle line point corner middle center north south east west left right front
    back inside outside upper lower minute hour second week month year market street road path train plane boat ship
    truck bicycle wagon station airport harbor ticket travel journey visit arrive leave return follow carry bring
    throw catch jump walk run swim climb sleep dream wake wash clean cook bake drink eat taste smell touch hear listen
    speak talk whisper shout laugh smile cry think know learn teach read write draw paint build break mend open close
    start finish begin stop wait hurry rest play win lose strawberry blueberry raspberry mississippi banana committee
    balloon coffee letter pepper bottle puzzle rabbit kitten puppy parrot pigeon turkey lobster dolphin panda zebra
    giraffe hippo leopard lizard beetle spider computer keyboard screen camera radio robot machine battery language
    model token program number memory science history nature weather
""")
LONG_SPELLING = _words("""
    adventure afternoon alphabet backpack basketball beautiful birthday blackbird blueprint breakfast butterflies
    campfire cardboard carnival carpenter caterpillar celebrate chocolates classroom coastline colorful comforter
    complete cornflower cupboard customer daughter daylight december different dinosaur discover doorstep
    downstairs dragonfly dreaming eighteen elevator envelope everywhere farmhouse favorite festival firewood fisherman
    flashlight footprint forgotten fountain fourteen friendship gardener generous gentleman goldfish grandfather
    grandmother grasshopper greenhouse handwriting happiness headlight hedgehog honeycomb horseback hurricane important
    invention kilometer kingdoms landscape lemonade lighthouse limestone magazine marathon marketplace meanwhile
    medicine midnight milkshake moonlight mountains mushroom necklace newspaper nightfall nineteen nobody notebook
    orchestra outdoors overcoat painting pancakes paperback peaceful peppermint playground pineapple platform pocketful
    porcelain postcard potatoes powerful princess railroad rainbows raindrop reindeer remember restaurant riverside
    rosemary sandwich saturday scarecrow seashell september shoulder sidewalk silverware sixteen skeleton snowflake
    snowstorm somewhere soldiers spaceship springtime staircase starfish sunlight sunshine surprise swimming teaspoon
    telephone telescope thirteen thousand together toothbrush treasure triangle umbrellas underground vacation
    vegetables village warehouse waterfall wednesday weekend whenever wilderness windmill wonderful woodland yesterday
""")
