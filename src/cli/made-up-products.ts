// Products in any number for `npm run seed`: varied as a shop's are, with shares that a test can count on.
import type { Sql } from '../database/connection.ts'

// prettier-ignore
const words = {
  kinds: ['Everyday', 'Small', 'Large', 'Folding', 'Stackable', 'Travel', 'Classic', 'Square', 'Round',
    'Tall', 'Shallow', 'Deep', 'Heavy', 'Light', 'Camping', 'Guest', 'Nordic', 'Provençal'],
  materials: ['enamel', 'stoneware', 'oak', 'beech', 'olive wood', 'cast-iron', 'steel', 'copper',
    'glass', 'bamboo', 'marble', 'slate', 'cork', 'walnut', 'porcelain', 'brass', 'ash', 'terracotta'],
  things: ['mug', 'bowl', 'plate', 'jar', 'tea caddy', 'bread box', 'skillet', 'stock pot', 'kettle',
    'whisk', 'spoon', 'scale', 'salt cellar', 'pepper mill', 'cutting board', 'cocotte', 'goblet',
    'candle holder', 'butter dish', 'colander', 'grater', 'ladle', 'rolling pin', 'sieve', 'teapot',
    'tray', 'carafe', 'spice rack', 'egg cup', 'cake stand', 'mortar', 'funnel', 'oven dish'],
  colours: ['blue', 'cream', 'forest green', 'brick red', 'oat', 'charcoal', 'black', 'white', 'sage',
    'mustard', 'sand', 'plum'],
  sizes: ['12 cm', '16 cm', '20 cm', '24 cm', '28 cm', '0.5 l', '1 l', '2 l', 'set of 2', 'set of 4'],
  notes: ['For the desk, the campfire and everything between.', 'No two are quite the same.',
    'Cheap to replace when one breaks.', 'Lasts longer than its owner.', 'Stays cool in the hand.',
    'Comes in a box of recycled board.', 'Made in small batches.', 'Oil it once a month.',
    'Kind to blades.', 'Spare parts are sold by the piece.', 'Guaranteed for ten years.',
    'Stands upright on its own.', 'Smells of honey, lit or not.', 'Dries without a streak.'],
  endings: ['0.01', '0.05', '0.5', '0'],
}

/** What the products of one run have in common. */
export interface Run {
  /** The last id before it. */
  lastId: number
  /** How many it is to have. */
  total: number
}

/**
 * Inserts `count` products. By their ids, of which the server hands out one after the other: 10 % have
 * no sku and 20 % no description; 50 % have the word "handmade", 1 % "limited" and 0.01 % "heirloom";
 * 85 % cost USD, 10 % EUR, 4 % GBP, 0.9 % CHF and 0.1 % ISK. The rest is by chance: 30 % are sold out
 * and 30 % were changed after they were made, in the course of the last two years.
 */
export async function insertMadeUp(sql: Sql, count: number, { lastId, total }: Run): Promise<void> {
  await sql`
    with words as (
      select array(select jsonb_array_elements_text(lists -> 'kinds')) as kinds,
             array(select jsonb_array_elements_text(lists -> 'materials')) as materials,
             array(select jsonb_array_elements_text(lists -> 'things')) as things,
             array(select jsonb_array_elements_text(lists -> 'colours')) as colours,
             array(select jsonb_array_elements_text(lists -> 'sizes')) as sizes,
             array(select jsonb_array_elements_text(lists -> 'notes')) as notes,
             array(select jsonb_array_elements_text(lists -> 'endings')::numeric) as endings
      from (select ${sql.json(words)}::jsonb) as given (lists)
    ), picked as (
      -- The id is drawn here, because the sku is made of it: no two runs make the same one.
      select nextval(pg_get_serial_sequence('products', 'id')) as id,
             kinds[1 + floor(random() * cardinality(kinds))::int] as kind,
             materials[1 + floor(random() * cardinality(materials))::int] as material,
             things[1 + floor(random() * cardinality(things))::int] as thing,
             colours[1 + floor(random() * cardinality(colours))::int] as colour,
             sizes[1 + floor(random() * cardinality(sizes))::int] as size,
             notes[1 + floor(random() * cardinality(notes))::int] as note,
             -- Many are cheap, and a thousand prices serve a million products.
             round(exp(random() * 5.5))::numeric
               - endings[1 + floor(random() * cardinality(endings))::int] as price,
             case when random() < 0.7 then 1 + floor(power(random(), 2) * 500)::int else 0 end as stock,
             1 + floor(random() * 60)::int * 50 as weight_g,
             random() as jitter,
             random() as change
      from words, generate_series(1, ${count}::int)
    ), dated as (
      select *, least(
        now(),
        now() - interval '2 years'
              + interval '2 years' * (least(id - ${lastId}::bigint, ${total}::bigint)::float8 / ${total}::bigint)
              - interval '1 hour' * jitter
      ) as created_at
      from picked
    )
    insert into products (id, sku, name, description, price, currency, stock, attributes, created_at, updated_at)
    overriding system value
    select id,
           case when id % 10 > 0 then upper(left(thing, 3)) || '-' || id end,
           case when id % 2 = 0 then 'Handmade' else kind end || ' ' || material || ' ' || thing || ', '
             || colour || ', ' || size || case when id % 100 = 7 then ', limited' else '' end,
           case when id % 10000 = 77 then 'An heirloom. ' || note when id % 5 <> 1 then note end,
           price,
           case when place < 850 then 'USD' when place < 950 then 'EUR' when place < 990 then 'GBP'
                when place < 999 then 'CHF' else 'ISK' end,
           stock,
           jsonb_build_object('colour', colour, 'material', material, 'weight_g', weight_g),
           created_at,
           case when change < 0.3 then created_at + (now() - created_at) * (change / 0.3) else created_at end
    from dated, lateral (select id * 7919 % 1000) as mixed (place)`
}
