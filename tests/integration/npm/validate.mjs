// node validate.mjs PACKAGES SCHEMAS: compiles every JSON Schema in ajv's strict mode, validates its example, and the
// AsyncAPI document by AsyncAPI's own schema. Prints what is wrong, a line each.
import fs from "node:fs";
import { createRequire } from "node:module";

const [packages, schemas] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const [{ default: Ajv }, { default: Ajv2020 }] = [require("ajv"), require("ajv/dist/2020.js")];
const addFormats = require("ajv-formats").default;
const read = (path) => JSON.parse(fs.readFileSync(path));

for (const file of fs.readdirSync(`${schemas}/json`)) {
  const name = file.replace(".schema.json", "");
  try {
    const ajv = new Ajv2020({ strict: true, allErrors: true });
    addFormats(ajv);
    const validate = ajv.compile(read(`${schemas}/json/${file}`));
    if (!validate(read(`${schemas}/examples/${name}.json`).value)) console.log(name, ajv.errorsText(validate.errors));
  } catch (error) {
    console.log(name, error.message);
  }
}
const ajv = new Ajv({ strict: false, meta: false, validateSchema: false }); // draft 7 itself is in what follows;
addFormats(ajv);
const validate = ajv.compile(require("@asyncapi/specs").schemas["3.0.0"]);
if (!validate(read(`${schemas}/asyncapi.json`))) console.log("asyncapi.json", ajv.errorsText(validate.errors).slice(0, 2000));
