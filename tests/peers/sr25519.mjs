// A signature by an implementation that shares nothing with schnorrkel: the vector in demo/src/object.rs.
//
//     npm install @scure/sr25519@2.3.0 && node tests/peers/sr25519.mjs
//
// The seed is that of Substrate's development account Alice, the message the bytes 0 to 31, in context `substrate`;
// 32 bytes of 0 in place of randomness make it reproducible.
import { getPublicKey, secretFromSeed, sign, verify } from "@scure/sr25519";

const seed = Buffer.from("e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a", "hex");
const secret = secretFromSeed(seed);
const message = Uint8Array.from({ length: 32 }, (_, i) => i);
const signature = sign(secret, message, new Uint8Array(32));
if (!verify(message, signature, getPublicKey(secret))) throw new Error("does not verify");
console.log("public   ", Buffer.from(getPublicKey(secret)).toString("hex"));
console.log("signature", Buffer.from(signature).toString("hex"));
