"""Things that the little world does not know about: names to put into questions that have no answer here."""

from __future__ import annotations


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.replace("\n", " ").split(","))


ABROAD = _items("""
    Wakanda, Narnia, Atlantis, Mordor, Texas, California, Florida, Bavaria, Scotland, Wales, Iceland, Nepal, Bolivia,
    Nigeria, Iraq, Iran, Israel, Jordan, Laos, Libya, Malta, Mongolia, Namibia, Panama, Qatar, Romania, Serbia,
    Slovenia, Somalia, Sudan, Syria, Togo, Tunisia, Uganda, Uruguay, Venezuela, Yemen, Zambia, Zimbabwe, Belgium,
    Bulgaria, Croatia, Estonia, Latvia, Lithuania, Albania, Algeria, Angola, Armenia, Bahrain, Belarus, Cambodia,
    Cameroon, Chad, Colombia, Ecuador, Ethiopia, Fiji, Georgia, Haiti, Honduras, Jamaica, Kuwait, Lebanon, Madagascar,
    Malaysia, Mali, Pakistan, Philippines, Senegal, Singapore, Slovakia, Switzerland, Tanzania, the moon, Mars,
    Antarctica, New Zealand, South Africa, Saudi Arabia, the United States, America, Africa, Asia, Hawaii, Greenland
""")
BEASTS = _items("""
    dragon, unicorn, griffin, giraffe, zebra, hippo, rhino, panda, lizard, parrot, pigeon, turkey, otter, badger,
    moose, raven, salmon, trout, worm, snail, slug, beetle, dinosaur, mammoth, phoenix, mermaid, jaguar, leopard,
    hyena, gorilla, sloth, lemur, peacock, ostrich, pelican, robot, teacher, chair, car, stone, house, ghost, alien,
    table, shirt, computer, doctor, bottle, window, pencil, king, witch, clown, vampire, zombie, crab, lobster,
    octopus, jellyfish, seal, otter, hamster, buffalo, goldfish, sparrow, woodpecker, yak, llama, alpaca, mole, bat,
    wasp, mosquito
""")
FAMOUS = _items("""
    Napoleon, Einstein, Shakespeare, Mozart, Elon Musk, Taylor Swift, Obama, Trump, Biden, Gandhi, Picasso, Newton,
    Darwin, Beyonce, Messi, Ronaldo, Batman, Harry Potter, Sherlock Holmes, Julius Caesar, Cleopatra, Plato, Bach,
    Beethoven, Steve Jobs, Bill Gates, Marie Curie, the president, the king, the pope, my neighbour, the mayor,
    Spider-Man, Karpathy, Lincoln, Churchill, Madonna, Elvis, Santa Claus
""")
GOODS = _items("""
    a car, a house, gold, bread, a phone, a ticket, bitcoin, a laptop, a pizza, oil, a train ticket, a bike, a coffee,
    rent, an apple, a flight, silver, a book
""")
SCIENCE = _items("""
    gravity, the economy, photosynthesis, quantum physics, electricity, the weather, democracy, history, love,
    philosophy, a black hole, an atom, energy, light, time, DNA, the internet, a virus, inflation, music, war, peace,
    religion, machine learning, a neural network, a transformer, chemistry, evolution, an algorithm, the universe,
    a computer, a volcano, magnetism, freedom, art, justice, happiness, intelligence, blockchain, capitalism
""")
LANGUAGES = _items("French, German, Spanish, Latin, Chinese, Greek, Dutch, Italian")
