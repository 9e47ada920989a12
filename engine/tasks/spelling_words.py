"""How people ask for the number of a letter in a word, in several languages. Data only."""

TEMPLATES = (
    # English
    "How many {letter} are in {word}",
    "How many {letter}s are there in {word}",
    "How many times does {letter} occur in {word}",
    "How often does the letter {letter} appear in {word}",
    "Count the letter {letter} in {word}",
    "Count how many {letter} there are in the word {word}",
    "What is the number of {letter} in {word}",
    "Number of {letter} in {word}",
    "In {word}, how many {letter} do you see",
    "In the word {word}, how often is there a {letter}",
    "Can you count the {letter}s in {word}",
    "Tell me how many {letter} {word} has",
    "Does {word} contain {letter}, and how many times",
    "How many of the letters of {word} are {letter}",
    "Please count {letter} in {word}",
    "Spell {word} and count the {letter}s",
    "If I write {word}, how many times do I write {letter}",
    "{word}: how many {letter}",
    "letter {letter} in {word}, how many",
    # Spanish
    "Cuántas {letter} hay en {word}",
    "Cuántas veces aparece {letter} en {word}",
    "Cuenta las {letter} de la palabra {word}",
    "Cuántas letras {letter} tiene {word}",
    # German
    "Wie viele {letter} stecken in {word}",
    "Wie oft kommt {letter} in {word} vor",
    "Zähle die {letter} in {word}",
    "Wie oft steht der Buchstabe {letter} im Wort {word}",
    # French
    "Combien de {letter} y a-t-il dans {word}",
    "Combien de fois {letter} apparaît dans {word}",
    "Compte les {letter} dans le mot {word}",
    # Italian
    "Quante {letter} ci sono in {word}",
    "Quante volte compare {letter} in {word}",
    # Portuguese
    "Quantas letras {letter} há em {word}",
    "Quantas vezes {letter} aparece em {word}",
    # Dutch
    "Hoeveel {letter} zitten er in {word}",
    "Hoe vaak komt {letter} voor in {word}",
    # Polish, Czech, Swedish, Turkish
    "Ile razy {letter} występuje w {word}",
    "Kolik {letter} je ve slově {word}",
    "Hur många {letter} finns det i {word}",
    "{word} kelimesinde kaç tane {letter} var",
    # Russian, Ukrainian
    "Сколько букв {letter} в слове {word}",
    "Сколько раз {letter} встречается в {word}",
    "Скільки літер {letter} у слові {word}",
    # Chinese, Japanese, Korean
    "{word}中有多少个{letter}",
    "{word}里有几个{letter}",
    "数一数{word}里的{letter}",
    "{word}の中に{letter}はいくつありますか",
    "{word}に{letter}は何回出てきますか",
    "{word}에 {letter}가 몇 개 있나요",
    # Arabic, Hindi
    "كم مرة يظهر الحرف {letter} في كلمة {word}",
    "{word} में {letter} कितनी बार आता है",
)
