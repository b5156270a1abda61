// The stock of a small household shop, so that a first `npm run dev` has something to page through.

/** As in the body of `POST /products`. */
export interface SampleProduct {
  sku: string | null
  name: string
  description: string | null
  price: number
  currency: string
  stock: number
  attributes: Record<string, unknown>
}

type Attributes = Record<string, unknown>
type Variant = [label: string, price: number, attributes?: Attributes]
/** Without a sku it is something that is sold, but not counted under a number. */
type Line = [
  sku: string | null,
  name: string,
  description: string | null,
  attributes: Attributes,
  variants: Variant[],
]

const one = (price: number): Variant[] => [['', price]]
const kinds = (key: string, price: number, ...names: string[]): Variant[] =>
  names.map((name) => [name, price, { [key]: name }])
const colours = (price: number, ...names: string[]) => kinds('colour', price, ...names)
const sizes = (key: string, unit: string, prices: [size: number, price: number][]): Variant[] =>
  prices.map(([size, price]) => [`${size} ${unit}`, price, { [key]: size }])

// prettier-ignore
const lines: Record<string, Line[]> = {
  USD: [
    ['MUG-ENA', 'Enamel mug',
      'Steel under two coats of enamel. For the desk, the campfire and everything between.',
      { category: 'tableware', volume_l: 0.35, tags: ['camping', 'dishwasher'] },
      colours(9.5, 'blue', 'cream', 'forest green', 'brick red')],
    ['MUG-STO', 'Stoneware mug', 'Thrown by hand, so that no two are quite the same.',
      { category: 'tableware', volume_l: 0.3, tags: ['handmade', 'microwave'] },
      colours(18.75, 'blue', 'oat', 'charcoal')],
    ['BWL-STO', 'Stoneware bowl', null, { category: 'tableware', tags: ['handmade'] },
      sizes('diameter_cm', 'cm', [[12, 14.5], [16, 19.5], [22, 29]])],
    ['PLT-EVD', 'Everyday plate', 'White, stackable, and cheap to replace when one breaks.',
      { category: 'tableware', tags: ['dishwasher', 'stackable'] },
      sizes('diameter_cm', 'cm', [[17, 5.95], [21, 7.5], [27, 9.95]])],
    ['JAR-PRS', 'Preserving jar',
      'Clip-top jar with a rubber seal, for jam, pickles and dry goods.',
      { category: 'storage', material: 'glass', tags: ['airtight', 'preserving'] },
      sizes('volume_l', 'l', [[0.25, 3.2], [0.5, 3.8], [1, 4.9], [1.5, 5.75], [3, 8.4]])],
    ['JAR-SEA', 'Rubber seals for preserving jars, pack of 10', null,
      { category: 'storage', material: 'natural rubber', pack: 10 }, one(4.25)],
    ['TIN-TEA', 'Tea caddy', 'Double lid, holds some 100 g of loose tea.',
      { category: 'storage', material: 'tinplate', airtight: true },
      colours(11.9, 'black', 'sage', 'mustard')],
    ['BOX-BRD', 'Bread box with a cutting board lid',
      'Keeps a loaf for four days; the lid is beech, oiled.',
      { category: 'storage', material: ['steel', 'beech'], size_cm: { w: 34, d: 22, h: 15 } },
      colours(64.9, 'white', 'graphite')],
    ['PAN-IRN', 'Cast-iron skillet',
      'Seasoned with flaxseed oil and ready to use. Lasts longer than its owner.',
      { category: 'cookware', material: 'cast iron', induction: true, tags: ['oven-proof'] },
      sizes('diameter_cm', 'cm', [[20, 24.9], [26, 34.9], [30, 44.9]])],
    ['POT-STK', 'Stock pot with lid',
      'Brushed steel with a sandwich base and litre marks inside.',
      { category: 'cookware', material: 'stainless steel', induction: true },
      sizes('volume_l', 'l', [[3, 39], [6, 54.5], [10, 79]])],
    ['KTL-WHI', 'Whistling kettle', null,
      { category: 'cookware', volume_l: 1.5, induction: true },
      colours(42, 'steel', 'blue', 'red')],
    ['WSK-BAL', 'Balloon whisk', 'Eleven wires, a handle that stays cool.',
      { category: 'utensils', material: 'stainless steel' },
      sizes('length_cm', 'cm', [[20, 6.4], [27, 7.9]])],
    ['SPN-OLV', 'Olive wood spoon', 'Cut from one piece of wood that is two hundred years old.',
      { category: 'utensils', material: 'olive wood', tags: ['handmade', 'no dishwasher'] },
      sizes('length_cm', 'cm', [[25, 7.25], [30, 8.75], [35, 10.5]])],
    ['SCL-KIT', 'Kitchen scale',
      'To the gram, up to five kilos; runs on a USB-C charge for half a year.',
      { category: 'utensils', max_kg: 5, precision_g: 1, charger: 'USB-C' },
      colours(27.5, 'white', 'black')],
    ['CLO-TEA', 'Linen tea towel, set of 2',
      'Washed linen, which dries glasses without a streak.',
      { category: 'textiles', material: 'linen', size_cm: { w: 50, h: 70 }, pack: 2 },
      colours(16, 'natural', 'blue stripe', 'red stripe', 'olive', 'rust')],
    ['APR-CAN', 'Canvas apron', 'Two pockets, cross-back straps.',
      { category: 'textiles', material: 'cotton canvas', care: { wash_c: 40, tumble_dry: false } },
      colours(38, 'navy', 'sand', 'black')],
    ['RIC-BAS', 'Basmati rice', 'Aged for a year, long-grained and fragrant.',
      { category: 'larder', origin: 'IN', organic: true, allergens: [] },
      sizes('weight_kg', 'kg', [[0.5, 3.45], [1, 6.2], [5, 26.9]])],
    ['COF-ESP', 'Espresso beans, dark roast',
      'Chocolate, walnut and no acidity worth mentioning.',
      { category: 'larder', origin: ['BR', 'IN'], roast: 'dark', organic: false },
      sizes('weight_g', 'g', [[250, 9.8], [500, 18.4], [1000, 34]])],
    ['COF-FIL', 'Filter coffee beans, light roast',
      'Washed, from one farm: bergamot, apricot and black tea.',
      { category: 'larder', origin: ['ET'], roast: 'light', organic: true },
      sizes('weight_g', 'g', [[250, 12.5], [500, 23.9]])],
    [null, 'Gift wrapping', 'Brown paper, string and a card with your words.',
      { category: 'service', shippable: false }, one(3.5)],
  ],
  EUR: [
    ['OIL-OLV', 'Extra virgin olive oil',
      'Picked early, pressed within four hours. Green, grassy, with a bite at the end.',
      { category: 'larder', origin: 'GR', organic: true, acidity_pct: 0.3 },
      sizes('volume_l', 'l', [[0.25, 7.9], [0.5, 13.5], [0.75, 18.9], [5, 89]])],
    ['VIN-BAL', 'Balsamic vinegar of Modena', 'Eight years in mulberry, cherry and oak.',
      { category: 'larder', origin: 'IT', aged_years: 8 },
      sizes('volume_l', 'l', [[0.1, 14.9], [0.25, 29.5]])],
    ['PAS-DUR', 'Durum wheat pasta, 500 g',
      'Drawn through bronze and dried slowly, so that sauce holds on to it.',
      { category: 'larder', origin: 'IT', weight_g: 500, allergens: ['gluten'] },
      kinds('shape', 2.95, 'spaghetti', 'penne', 'orecchiette', 'fusilli')],
    ['TOM-PEE', 'Peeled tomatoes', null,
      { category: 'larder', origin: 'IT', organic: true, packaging: 'tin' },
      sizes('weight_g', 'g', [[400, 1.69], [800, 2.79]])],
    ['HON-FOR', 'Forest honey',
      'Dark and malty, from the Black Forest. It may set; a warm bath makes it run again.',
      { category: 'larder', origin: 'DE', packaging: 'glass' },
      sizes('weight_g', 'g', [[250, 6.4], [500, 11.2]])],
    ['MUS-DIJ', 'Moutarde de Dijon', 'Forte, très forte.',
      { category: 'larder', origin: 'FR', weight_g: 200, allergens: ['mustard'], vegan: true },
      one(3.85)],
    ['SEL-GUE', 'Fleur de sel de Guérande', 'Raked by hand on still summer evenings.',
      { category: 'larder', origin: 'FR', packaging: 'cork-lidded jar' },
      sizes('weight_g', 'g', [[125, 6.9], [250, 11.5]])],
    ['KNF-CHF', 'Chef’s knife', 'Forged in Solingen, 58 HRC, sharpened by hand.',
      { category: 'knives', material: 'X50CrMoV15', made_in: 'DE' },
      sizes('blade_cm', 'cm', [[16, 79], [20, 94.5], [23, 109]])],
    ['KNF-PAR', 'Paring knife', null, { category: 'knives', blade_cm: 8, made_in: 'DE' },
      colours(12.9, 'black', 'red', 'beech')],
    ['BRD-OAK', 'Oak cutting board', 'End grain, kind to blades; with a groove for juice.',
      { category: 'utensils', material: 'oak', care: { oil: 'monthly', dishwasher: false } },
      [['small', 34, { size_cm: { w: 30, d: 20 } }], ['large', 59, { size_cm: { w: 45, d: 30 } }]]],
    ['COC-ENA', 'Enamelled cocotte', 'Cast iron that browns, braises and goes to the table.',
      { category: 'cookware', material: 'cast iron', induction: true, made_in: 'FR' },
      colours(189, 'cherry', 'sea blue', 'cream', 'black')],
    ['GLS-WIN', 'Wine glasses, set of 6', 'Crystal without lead, light in the hand.',
      { category: 'tableware', material: 'crystal', pack: 6 },
      [['white wine', 44.9, { volume_l: 0.35 }], ['red wine', 49.9, { volume_l: 0.55 }]]],
    ['CAN-BEE', 'Beeswax candles', 'They smell of honey, lit or not.',
      { category: 'household', material: 'beeswax', burning_h: 9 },
      [['pair', 8.4, { pack: 2 }], ['box of 12', 45, { pack: 12 }]]],
  ],
  GBP: [
    ['TEA-BRK', 'English breakfast tea', 'Assam and Kenya, strong enough for milk.',
      { category: 'larder', caffeine: true, tags: ['black tea'] },
      [['40 bags', 3.6, { bags: 40 }], ['240 bags', 15.75, { bags: 240 }],
        ['loose, 250 g', 8.95, { weight_g: 250 }]]],
    ['TEA-EGR', 'Earl Grey', 'With oil of bergamot, and nothing else.',
      { category: 'larder', caffeine: true, tags: ['black tea', 'bergamot'] },
      [['40 bags', 3.95, { bags: 40 }], ['loose, 250 g', 9.6, { weight_g: 250 }]]],
    ['JAM-FRU', 'Jam, 340 g', 'Small batches in copper pans; two parts of fruit to one of sugar.',
      { category: 'larder', weight_g: 340, fruit_pct: 66, vegan: true },
      kinds('fruit', 4.5, 'strawberry', 'damson', 'gooseberry', 'blackcurrant',
        'Seville orange')],
    ['BSC-OAT', 'Oat biscuits', null,
      { category: 'larder', weight_g: 300, allergens: ['gluten', 'milk'] }, one(2.4)],
    ['BRU-DSH', 'Dish brush with a changeable head', 'Beech and tampico fibre.',
      { category: 'household', material: ['beech', 'tampico'], plastic_free: true },
      [['', 6.25], ['spare head', 2.75, { spare_part: true }]]],
    ['SOP-BLK', 'Block soap', 'Olive oil soap, stamped and dried for six months.',
      { category: 'household', vegan: true, plastic_free: true },
      [...kinds('scent', 5.5, 'lavender', 'lemon'), ['unscented', 5.2, { scent: null }]]],
    [null, 'Knife sharpening, per blade', 'Bring it in the morning, fetch it the next day.',
      { category: 'service', shippable: false }, one(4)],
  ],
  CHF: [
    ['CHO-BAR', 'Chocolate bar, 100 g', 'Conched for 72 hours.',
      { category: 'larder', weight_g: 100, fair_trade: true, origin: 'PE' },
      [['milk 40 %', 4.2, { cocoa_pct: 40, allergens: ['milk'] }],
        ['dark 70 %', 4.5, { cocoa_pct: 70 }], ['dark 85 %', 4.9, { cocoa_pct: 85 }]]],
    ['PEE-VEG', 'Vegetable peeler', 'The one of 1947.',
      { category: 'utensils', material: 'aluminium', made_in: 'CH' },
      colours(6.95, 'silver', 'red', 'yellow')],
    ['RAC-SET', 'Raclette oven for 6', 'With six pans, six spatulas and a stone on top.',
      { category: 'appliances', power_w: 1200, pans: 6, guarantee: { years: 3 } }, one(129)],
    [null, 'Mountain cheese, by the piece', 'What the wheel gives: some 400 g.',
      { category: 'larder', weighed: true, allergens: ['milk'], aged_months: 14 }, one(15.8)],
  ],
  JPY: [
    ['RIC-DON', 'Donabe rice cooker',
      'Clay from Iga, with two lids: rice as it was before electricity.',
      { category: 'cookware', material: 'clay', induction: false, made_in: 'JP' },
      sizes('serves', 'cups', [[2, 9800], [3, 14800]])],
    ['TEA-SEN', 'Sencha, first harvest', null,
      { category: 'larder', origin: 'JP', tags: ['green tea'], best_brewed_c: 70 },
      sizes('weight_g', 'g', [[50, 980], [100, 1780]])],
    ['KNF-SAN', '三徳包丁 Santoku knife',
      'Blue steel no. 2 in a soft iron jacket. It rusts when left wet.',
      { category: 'knives', blade_cm: 16.5, material: 'Aogami 2', made_in: 'JP' }, one(16500)],
  ],
}

export const sampleProducts: SampleProduct[] = Object.entries(lines)
  .flatMap(([currency, ofCurrency]) =>
    ofCurrency.flatMap(([sku, name, description, attributes, variants]) =>
      variants.map(([label, price, own], index) => ({
        sku: sku && (variants.length > 1 ? `${sku}-${index + 1}` : sku),
        name: label ? `${name}, ${label}` : name,
        description,
        price,
        currency,
        attributes: { ...attributes, ...own },
      })),
    ),
  )
  // Every seventh is sold out, the others differ.
  .map((product, index) => ({ ...product, stock: index % 7 === 6 ? 0 : 1 + ((index * 37) % 113) }))
