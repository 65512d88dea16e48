// @moq/token at work for tests/auth/test_interop.py: one command, its arguments as JSON on standard input.
import { readFileSync } from "node:fs";

const [module, command] = process.argv.slice(2);
const { generate, load, loadPublic, sign, verify } = await import(module);
const given = JSON.parse(readFileSync(0, "utf8"));

const commands = {
	generate: async () => ({ key: JSON.stringify(await generate(given.algorithm, "theirs")) }),
	sign: async () => ({ token: await sign(load(given.key), given.claims) }),
	verify: async () => {
		const secret = JSON.parse(given.key).kty === "oct";
		return verify(secret ? load(given.key) : loadPublic(given.key), given.token, given.path);
	},
};

let found;
try {
	found = await commands[command]();
} catch (error) {
	found = { error: String(error) };
}
console.log(JSON.stringify(found));
