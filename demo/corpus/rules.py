"""Grammars by language, written for this project: own words, in the public domain (CC0).

Read by :class:`corpus.grammar.Grammar`. The Japanese one is in hiragana as it is pronounced, with
spaces between words.
"""

ENGLISH = """
text: <sentence> | <sentence> <sentence> | <sentence> <sentence> | <sentence> <written>
 | <short> <sentence> <sentence> | <written> <sentence> | <written> <short> | <sentence> <short>
sentence: <who> <did> <what> <where>. | <when>, <who> <did> <what>.
 | <plural> <prep> <place> <were> <adj>. | did <who> <do> <what> <when2>?
 | why would <who> <do> <what> <where>? | <who> <did> <what>, but <who> <did2>.
 | if <who> <did2>, we should <do> <what> before <weekday>.
 | the <noun> was <adv> <adj>, and the <noun> was even <more>.
 | <number> <plural> and <number> <plural> <were> <where>.
 | please <do> <what> and <do> the <noun> <when2>.
 | I think <who> <did> <what> because the <noun> was <adj>.
 | we met <name> and <name> <where> <when2>. | <name> asked, "who <did> <what>?"
 | it takes about <number> minutes to <do> <what>.
 | on <weekday> the <number> of <month>, <who> <did2>.
 | the <adj>, <adj> <noun> <did2> <where>. | neither <who> nor <name> <did> <what>.
 | <do> the <noun>, <do> the <noun>, and then <do> <what>.
 | there was <a> <adj> <noun> <where>, wasn't there?
 | <who> has been <doing> <what> since <month>.
 | while <who> was <doing> <what>, the <noun> <did2>.
 | <adv>, <who> <did> <what> <where>. | how <adv> <who> <did2>!
 | <a> <noun> of <mass> costs <number> dollars <where>.
 | nobody knew whether <who> or <who> <did> <what>.
 | <who> bought <mass>, <mass>, and <number> <plural>.
 | not only <plural>, but also <plural> <were> <adj>.
 | the <noun>'s <noun> is <more> than <name>'s <noun>.
 | choose <a> <colour> <noun> or <a> <colour> <noun>.
 | she whispered that <who> <did2> <when2>. | they are <doing> <what> and <doing> <plural>.
short: thank you very much. | good morning, <name>. | wait a moment, please. | oh, really?
 | that is <adj>! | no, <number>, not <number>. | yes, of course. | I am <adv> sorry.
 | what a <adj> <noun>! | are you <doing> <what>? | call me on <weekday>. | ready, set, go!
 | <colour>, <colour>, <colour>, and <colour>. | see you in <month>. | who is <name>?
 | it's <adj>, isn't it? | <mass> or <mass>? | where are the <plural>? | let us <do> <what>.
 | <number>, <number>, <number>. | nothing else matters. | <weekday>, <weekday>, or <weekday>?
who: <name> | <name> | the <role> | the <adj> <role> | my <role> | everyone | her <role> | he
 | she
 | you | they | our <adj> <role> | <a> <role> from <country>
what: the <adj> <noun> | <a> <noun> | <number> <plural> | some <mass> | the <colour> <noun>
 | his <noun> | every <noun> | those <adj> <plural> | the <noun> and the <noun> | <a> <adj> <noun>
where: <prep> <place> | <prep> the <colour> <noun> | in <country> | here | <prep> <place>
 | near <place> in <country> | outside | <prep> <name>'s <noun>
when: <when2> | in <month> | on <weekday> | after <number> hours | long before dawn | suddenly
when2: yesterday | at noon | last <weekday> | this evening | every <weekday> | next <month>
 | at half past <hour> | around <hour> o'clock | twice a year | tonight | again
a: a
were: were | are | seemed | looked | will be | had become
name: Abigail | Arthur | Beatrice | Boris | Charlotte | Claude | Daphne | Douglas | Edith | Eugene
 | Fiona | Frank | Georgia | Giles | Harriet | Hugh | Irene | Ivan | Joyce | Julian | Katherine
 | Keith | Louise | Lloyd | Martha | Matthew | Naomi | Noah | Olive | Oscar | Phoebe | Paul
 | Quentin | Rachel | Rupert | Sheila | Stephen | Theo | Thelma | Ursula | Victor | Vera | Wayne
 | Winifred | Yvonne | Yusuf | Zoe | Mister Chow | Doctor Blythe | Missus Vaughan
role: teacher | judge | plumber | brother | sister | neighbour | chef | pilot | nurse | author
 | farmer | cousin | driver | grandmother | clerk | stranger | sailor | shepherd | thief | boss
 | engineer | child | uncle | youth | champion | architect | juggler | choir | crowd | visitor
noun: apple | bridge | cushion | drum | elbow | feather | garage | hedge | island | jacket
 | kettle
 | ladder | mirror | needle | orange | pocket | quilt | river | shovel | thimble | umbrella
 | violin | wheel | yacht | zipper | axe | beige scarf | cloth | dough | earth | flame | glove
 | harp | inch | joke | knife | leash | month | noise | owl | path | queue | rhythm | spring
 | throne | tongue | vase | whistle | yolk | zone | church | thread | sphinx | strength | glimpse
 | treasure | vision | measure | puzzle | button | bottle | castle | muscle | wolf | bulb | film
 | desk | task | wasp | mask | tent | lamp | tank | box | clock | plan | scratch | shrimp | swamp
 | twig | dwarf | square | stream | splash | screw | boy | coin | cow | house | tower | fire
 | cure | chair | beer | floor | curve | bird | nurse's cap | idea | diary | poem | museum
plural: apples | boxes | cups | dishes | eggs | forks | goats | horses | inks | jars | keys
 | leaves
 | mice | nets | oaks | pears | quizzes | rocks | shoes | things | uniforms | voices | watches
 | youths | zebras | bridges | months | sixths | clothes | paths | lengths | beliefs | mouths
 | wolves | hopes | ribs | backs | bags | hats | heads | laughs | loves | breaths | buses | roses
 | wishes | beaches | judges | rooms | trains | songs | hills | cars | eyes | ways | boys | cows
mass: bread | cheese | honey | juice | sugar | thyme | flour | vinegar | wool | jewellery
 | yoghurt
 | ginger | chalk | smoke | ice | oil | cotton | rice | glue | music | silver | fudge | mud
adj: ancient | bitter | cheerful | distant | empty | frozen | gentle | huge | icy | jealous | kind
 | loose | mild | narrow | odd | polite | quiet | rough | sharp | thick | ugly | vague | wide
 | young
 | zealous | smooth | strange | thirsty | foolish | bashful | crisp | damp | dull | fresh | fluffy
 | glossy | heavy | loyal | lovely | noisy | proud | rural | shiny | square | third | twelfth
 | watchful | worthless | casual | enough | obvious | precious | curious | furious | usual
 | joyous
 | pure | rare | fair | poor | warm | wild | orange | beautiful | purple | electric | magnificent
more: older | quieter | stranger | thicker | smoother | louder | heavier | more useful
 | more dangerous | less valuable | wiser | shorter | further away | cheaper
adv: always | barely | calmly | deeply | easily | freshly | gradually | happily | instantly
 | joyfully
 | kindly | loudly | mostly | nearly | oddly | partly | quickly | roughly | slowly | thoughtfully
 | usually | vividly | warmly | exactly | youthfully | fortunately | unusually | silently
colour: black | blue | brown | golden | green | grey | pink | purple | red | scarlet | turquoise
 | violet | white | yellow | beige | crimson
number: two | three | four | five | six | seven | eight | nine | ten | eleven | twelve | thirteen
 | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen | twenty | thirty-one
 | forty-two | fifty-three | sixty-four | seventy-five | eighty-six | ninety-seven | one hundred
 | two hundred and eight | a thousand | three thousand | half a million | several | a dozen
hour: one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve
weekday: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday
month: January | February | March | April | May | June | July | August | September | October
 | November | December
country: France | Brazil | Egypt | Japan | Norway | Chile | Kenya | Hungary | Wales | Vietnam
 | Portugal | Georgia | Luxembourg | Switzerland | Zambia | Peru | Yorkshire | Massachusetts
place: the harbour | the church | the garden shed | the railway station | the old theatre
 | a village square | the south bridge | the zoo | the library | the fourth floor | the beach
 | the valley | my kitchen | the garage | the museum | the edge of the wood | the judge's office
 | the path | the shoe shop | the school | the orchard | the narrow street | the lighthouse
prep: in | near | behind | above | across from | beyond | beside | under | around | past | through
 | opposite | towards | outside
did: found | brought | watched | pushed | caught | chose | drew | fetched | judged | knew | lost
 | mixed | needed | opened | painted | quoted | raised | shook | threw | used | valued | washed
 | yanked | zipped up | breathed on | changed | joined | laughed at | measured | squeezed
 | scrubbed
 | stretched | enjoyed | noticed | described | borrowed | poured | bathed | healed | owned | hid
did2: arrived late | began to sing | coughed | danced | escaped | fell over | giggled | hesitated
 | improved | jumped | knocked twice | laughed | moved away | nodded | objected | paused
 | quarrelled
 | returned | shouted | thought about it | understood | vanished | waited | yawned | zigzagged
 | sneezed | froze | grew | slept through it | changed colour | agreed | breathed out | twitched
do: find | bring | watch | push | catch | choose | draw | fetch | judge | lose | mix | open
 | paint
 | raise | shake | throw | use | value | wash | join | measure | squeeze | stretch | enjoy | pour
 | borrow | describe | save | move | heat | check | fold | break | buy | bathe | hide | boil
doing: finding | bringing | watching | pushing | catching | choosing | drawing | fetching
 | judging
 | mixing | opening | painting | shaking | throwing | using | washing | joining | measuring
 | squeezing | enjoying | pouring | borrowing | describing | folding | breaking | boiling
written: Six thick thistles stood at the south side of the path.
 | The azure sky turned to beige and then to a deep, rusty orange.
 | Joyce chose the cheapest cheese that the jolly shopkeeper had.
 | His vision of the future was usually measured in small treasures.
 | Young Hugh used a huge yellow umbrella to shield the few musicians.
 | Thirty-three thoughtful youths breathed through thin leather masks.
 | Would you rather have wool, wood, or woven willow?
 | The singer's long strong fingers were clinging to the ringing string.
 | Around noon, a loud brown cow wandered down to our house.
 | Roy's noisy boy enjoyed annoying the royal oyster buyer.
 | Clear water flows slowly under the bare stone bridge near here.
 | Vivian gave Eve five of the very heavy velvet gloves.
 | A rare bear stares at the fair-haired mayor over there.
 | Ask the last dancer to pass the brass glass after class.
 | Zebras graze lazily as the breeze rises over dozens of hazy hills.
 | Pack a big black backpack, grab a map, and catch a cab.
 | The judge's badge had a smudged edge like an orange hedgehog.
 | Fresh fish and mashed radishes should be washed and then pushed aside.
 | Bob's cod was hot, so Tom got a pot and stopped the clock.
 | Her first nurse heard thirty birds chirp at the church.
 | He could put a good foot in a wooden bush, but he shouldn't.
 | It's a pity that the busy women in the mill didn't sit still.
 | Lead the sheep to the deep green field beneath the three trees.
 | Who knew that the blue shoe would move through the smooth new pool?
 | Many men meant to send ten wet pets to the vet's best friend.
 | Come up for lunch; some of us love honey, nuts, and onions.
 | All autumn long Paul saw tall, awful walls fall onto the lawn.
 | Kite flyers like bright, mild skies and light, wild winds.
 | They say the great grey whale may stay eight days in the bay.
 | No one knows whose boat rowed over the cold ocean alone.
 | Please tell the captain that the engine stopped twice during the night.
 | The forecast promises sunshine in the north and scattered showers elsewhere.
 | We are looking for volunteers who can read aloud for about an hour.
 | To make the soup, chop an onion, two carrots, and a handful of parsley.
 | Turn left at the traffic lights, then take the second exit.
 | Your train will depart from platform nine in exactly four minutes.
 | A group of scientists measured how quickly the glacier was melting.
 | The museum is closed on Mondays, except during the school holidays.
 | Twelve thousand people signed the petition within a single weekend.
 | She explained the theorem twice, and still nobody quite understood it.
 | My grandfather kept bees behind the barn until he was almost ninety.
 | If the battery is low, the little light on the left begins to blink.
 | Nobody expected the quiet boy in the corner to win the whole contest.
 | The recipe calls for vanilla, but a pinch of cinnamon works just as well.
 | Rain drummed on the roof while the children built a castle out of boxes.
 | An old lighthouse keeper told us stories about ships lost in the fog.
 | Have you ever wondered why the sea looks green in winter?
 | I would like a single ticket to Oxford, please, and a cup of tea.
 | The judge listened carefully, wrote three words, and closed the book.
 | Every spring, the river floods the meadow and leaves a layer of rich mud.
 | Is this the right queue for the early afternoon performance?
 | Speech is a stream of sounds, each one shaped by its neighbours.
 | The dog barked, the cat hissed, and the parrot asked for a biscuit.
 | You can store the beans in a dry place for roughly six months.
 | Her voice was low and rough, as if she had been shouting all day.
 | After the concert, the orchestra shared an enormous chocolate cake.
 | What shall we do with these extra chairs and the broken shelf?
 | He measured twice, sawed once, and was pleased with the smooth joint.
 | The village bakery sells rye bread, plum pastries, and ginger biscuits.
 | Strong gusts pushed the ships against the jagged cliffs.
"""

GERMAN = """
text: <satz> | <satz> <satz> | <kurz> <satz> | <satz> <kurz>
satz: <wer> <tat> <was> <wo>. | <wann> <tat> <wer> <was>. | warum <tat> <wer> <was> nicht?
 | <zahl> <viele> standen <wo>. | wenn es regnet, bleiben die <viele> <wo>.
 | <wer> möchte <wann> <zahl> <viele> kaufen. | der Zug nach <stadt> fährt um <zahl> Uhr ab.
 | in <stadt> gibt es <zahl> <adj> <viele>. | ich glaube, dass <wer> <was> gesucht hat.
kurz: guten Morgen! | vielen Dank. | wie geht es Ihnen? | das ist sehr <adj2>.
 | einen Augenblick, bitte.
 | schade, dass Sie gehen müssen. | bis <wann>!
wer: meine Schwester | der junge Mann | die Köchin | unser Nachbar | das Mädchen | Jürgen
 | Frau Schäfer
 | der Fuchs | die Ärztin | ein fröhlicher Gärtner | Herr Zöllner
tat: fand | brachte | zeichnete | öffnete | suchte | schüttelte | verkaufte | hörte | verglich
 | pflückte
was: das alte Buch | einen Schlüssel | die Brücke | ein Stück Kuchen | den blauen Mantel
 | das Frühstück
 | zwölf Äpfel | die Zeitung | das Fenster | eine Flöte | den Tisch | ein Pferd | die Wäsche
wo: im Garten | auf dem Marktplatz | hinter der Kirche | in der Küche | am Bahnhof
 | unter der Brücke
 | neben dem Schloss | zwischen den Häusern | an der Grenze
wann: gestern | am Sonntag | heute Abend | im Frühling | morgen früh | jeden Mittwoch | im Oktober
zahl: zwei | drei | fünf | sieben | neun | elf | zwanzig | sechsundvierzig | hundert | achtzehn
viele: Vögel | Bücher | Kinder | Häuser | Blumen | Züge | Wölfe | Flaschen | Tassen | Schiffe
 | Jungen
adj: schöne | große | ruhige | gefährliche | süße | frische | grüne
adj2: schön | ruhig | gefährlich | süß | frisch | wichtig | langweilig | ungewöhnlich
stadt: Köln | München | Zürich | Bremen | Leipzig | Würzburg | Jena
"""

SPANISH = """
text: <frase> | <frase> <frase> | <corta> <frase> | <frase> <corta>
frase: <quien> <hizo> <que> <donde>. | <cuando>, <quien> <hizo> <que>.
 | ¿por qué <quien> no <hizo> <que>? | hay <numero> <cosas> <donde>.
 | si llueve, <quien> guarda las <cosas> <donde>. | el tren sale a las <numero> de la <parte>.
 | me parece que <quien> <hizo> <que> <cuando>. | queremos comprar <numero> <cosas> <adj>.
corta: buenos días. | muchas gracias. | ¿cómo está usted? | un momento, por favor.
 | ¡qué sorpresa!
 | hasta mañana. | no pasa nada.
quien: mi hermana | el panadero | la jueza | un niño pequeño | Guillermo | la señora Muñoz
 | nuestro vecino | el viejo pescador | Begoña | el zorro
hizo: encontró | llevó | dibujó | abrió | buscó | vendió | escuchó | rompió | eligió | recogió
que: el libro antiguo | una llave | el puente | un trozo de queso | la chaqueta verde
 | el desayuno
 | doce manzanas | el periódico | la ventana | una guitarra | el caballo | aquella carta
donde: en el jardín | en la plaza | detrás de la iglesia | en la cocina | cerca de la estación
 | bajo el puente | junto al río | entre las casas | en Zaragoza | en Chile
cuando: ayer | el domingo | esta noche | en primavera | por la mañana | cada jueves | en octubre
numero: dos | tres | cinco | siete | nueve | once | veinte | quince | ocho | doce
parte: mañana | tarde | noche
cosas: sillas | flores | cajas | botellas | llaves | guitarras | naranjas | hojas | zapatillas
adj: rojas | pequeñas | viejas | extrañas | ligeras | baratas
"""

FRENCH = """
text: <phrase> | <phrase> <phrase> | <courte> <phrase> | <phrase> <courte>
phrase: <qui> <fit> <quoi> <ou>. | <quand>, <qui> <fit> <quoi>.
 | pourquoi <qui> <fit> <quoi> <ou> ?
 | il y a <nombre> <choses> <ou>. | s'il pleut, <qui> range les <choses> <ou>.
 | le train de <nombre> heures part pour <ville>. | je crois que <qui> <fit> <quoi> <quand>.
 | nous voudrions acheter <nombre> <choses> <adj>.
courte: bonjour à tous. | merci beaucoup. | comment allez-vous ? | un instant, je vous prie.
 | quelle surprise ! | à demain. | ce n'est pas grave.
qui: ma sœur | le boulanger | la juge | un petit garçon | Guillaume | madame Chevalier
 | notre voisin | le vieux pêcheur | Agnès | le renard
fit: a trouvé | a porté | a dessiné | a ouvert | a cherché | a vendu | a écouté | a brisé
 | a choisi
quoi: le vieux livre | une clef | le pont | un morceau de fromage | la veste verte | le déjeuner
 | douze pommes | le journal | la fenêtre | une guitare | le cheval blanc | cette lettre | un œuf
ou: dans le jardin | sur la place | derrière l'église | à la cuisine | près de la gare
 | sous le pont
 | au bord du fleuve | entre les maisons | chez le voisin
quand: hier | dimanche | ce soir | au printemps | demain matin | chaque jeudi | en octobre
 | en juin
nombre: deux | trois | cinq | sept | neuf | onze | vingt | quinze | huit | dix
choses: chaises | fleurs | boîtes | bouteilles | clefs | feuilles | oranges | cuillères | images
adj: rouges | neuves | anciennes | étranges | légères | utiles
ville: Lyon | Bruges | Nantes | Auxerre | Toulouse | Genève
"""

ITALIAN = """
text: <frase> | <frase> <frase> | <breve> <frase> | <frase> <breve>
frase: <chi> <fece> <cosa> <dove>. | <quando> <chi> <fece> <cosa>.
 | perché <chi> non <fece> <cosa>?
 | ci sono <numero> <cose> <dove>. | se piove, <chi> mette le <cose> <dove>.
 | il treno per <citta> parte alle <numero>. | penso che <chi> cerchi <cosa> <quando>.
 | vorremmo comprare <numero> <cose> <agg>.
breve: buongiorno. | grazie mille. | come sta? | un attimo, per favore. | che sorpresa!
 | a domani.
chi: mia sorella | il fornaio | la maestra | un bambino | Guglielmo | la signora Bianchi
 | il nostro vicino | il vecchio pescatore | Agnese | la volpe
fece: trovò | portò | disegnò | aprì | cercò | vendette | ascoltò | ruppe | scelse | raccolse
cosa: il libro antico | una chiave | il ponte | un pezzo di formaggio | la giacca verde
 | la colazione
 | dodici mele | il giornale | la finestra | una chitarra | il cavallo | quella lettera
 | uno specchio
dove: in giardino | in piazza | dietro la chiesa | in cucina | vicino alla stazione
 | sotto il ponte
 | lungo il fiume | tra le case | sullo scoglio
quando: ieri | domenica | stasera | in primavera | domattina | ogni giovedì | in ottobre
numero: due | tre | cinque | sette | nove | undici | venti | quindici | otto | dodici
cose: sedie | foglie | scatole | bottiglie | chiavi | chitarre | arance | sciarpe | maglie
agg: rosse | piccole | vecchie | strane | leggere | utili
citta: Genova | Cagliari | Bologna | Perugia | Foggia | Zagabria
"""

JAPANESE = """
text: <bun> | <bun> <bun> | <mijikai> <bun> | <bun> <mijikai>
bun: <itsu>、 <dare> わ <doko> で <nani> お <shita>。
 | <dare> わ <nani> お <shita> から、 とても <adj> です。
 | <doko> に <nani> が <kazu> あります。 | <itsu> <nani> お <shita> ひと わ <dare> です か？
 | <dare> と <dare> わ <itsu> <doko> え いきました。
 | この <nani> わ <adj> けれど、 あの <nani> わ <adj> です。
 | <doko> まで <kazu> ぐらい かかります。 | もし あめ が ふったら、 <doko> で <nani> お <suru>。
mijikai: おはよー ございます。 | ありがとー ございます。 | おげんき です か？
 | ちょっと まって ください。
 | それ わ <adj> です ね。 | また <itsu> あいましょー。 | すみません。
dare: わたし | せんせー | いもーと | となり の ひと | おじーさん | りょーり にん | けんじ さん
 | ゆみこ さん
 | がくせー | おいしゃ さん | きょーだい
doko: こーえん | えき の まえ | だいどころ | としょかん | びょーいん | うみ の ちかく | がっこー
 | きょーと
 | ほっかいどー | ゆーびんきょく | ひろば
nani: しんぶん | りんご | ぎゅーにゅー | てがみ | じてんしゃ | えんぴつ | おちゃ | ざっし | ぼーし
 | かばん
 | しゃしん | はな | とけー | ちゃわん | きっぷ
shita: かいました | みつけました | よみました | わすれました | もって きました | えらびました
 | うりました
 | つくりました | ならべました | しらべました
suru: えらびましょー | さがしましょー | つくりましょー | つかいましょー
adj: おもしろい | あたらしい | つめたい | むずかしい | ふるい | やわらかい | すばらしい | ちいさい
 | めずらしい
itsu: きのー | きょー | あした | にちよーび に | ふゆ に | らいねん | ごがつ に | ゆーがた | けさ
kazu: みっつ | ごふん | じゅっぽん | にじゅー にん | ひゃくえん | さんぜん | ろくじかん | はちまい
"""

RULES = {
    "en": ENGLISH,
    "de": GERMAN,
    "es": SPANISH,
    "fr": FRENCH,
    "it": ITALIAN,
    "ja": JAPANESE,
}
