import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PasswordHasher } from '../../src/ops/password-hash.ts';
import { networkOf, SignInLimits } from '../../src/ops/sign-in-limits.ts';

const LIMITED = { code: 'RATE_LIMITED' };

describe('how often somebody may fail to sign in', () => {
  it('is ten times in a minute for a name, from wherever, and one comes back every six seconds', () => {
    let now = 0;
    const limits = new SignInLimits(() => now);
    for (let i = 0; i < 10; i++) limits.begin('alice', `192.0.2.${i}`);
    assert.throws(() => limits.begin('alice', '192.0.2.99'), { ...LIMITED, message: 'Too many tries. Wait 6 s.' });
    limits.begin('bob', '192.0.2.99');
    now += 5_999;
    assert.throws(() => limits.begin('alice', '192.0.2.99'), LIMITED);
    now += 1;
    limits.begin('alice', '192.0.2.99');
    assert.throws(() => limits.begin('alice', '192.0.2.99'), LIMITED);
  });

  it('is not counted for who has signed in, and never keeps him out where he has before', () => {
    const limits = new SignInLimits(() => 0);
    for (let i = 0; i < 100; i++) limits.begin('alice', 'home')();
    for (let i = 0; i < 10; i++) limits.begin('alice', `192.0.2.${i}`);
    assert.throws(() => limits.begin('alice', '192.0.2.99'), LIMITED);
    limits.begin('alice', 'home')();
  });

  it('is limited for a familiar address too', () => {
    const limits = new SignInLimits(() => 0);
    limits.begin('alice', 'home')();
    for (let i = 0; i < 10; i++) limits.begin('alice', 'home');
    assert.throws(() => limits.begin('alice', 'home'), LIMITED);
  });

  it('is fifty times in a minute for an address, and a name that is refused takes nothing of it', () => {
    const limits = new SignInLimits(() => 0);
    for (let i = 0; i < 10; i++) limits.begin('alice', 'there');
    for (let i = 0; i < 100; i++) assert.throws(() => limits.begin('alice', 'there'), LIMITED);
    for (let i = 0; i < 40; i++) limits.begin(`guess-${i}`, 'there');
    assert.throws(() => limits.begin('another', 'there'), LIMITED);
  });

  it('counts what one caller has for himself as one address', () => {
    assert.equal(networkOf('192.0.2.1'), '192.0.2.1');
    assert.equal(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2');
    assert.equal(networkOf('2001:db8::1'), '2001:db8:0:0');
    assert.equal(networkOf('2001:db8::2'), networkOf('2001:db8::1'));
    assert.equal(networkOf('::1'), '0:0:0:0');
    assert.equal(networkOf('2001:db8:1:2::'), '2001:db8:1:2');
    assert.equal(networkOf(null), 'unknown');
  });
});

describe('hashing passwords', () => {
  it('gives another hash each time, which fits the password alone, however its accents are composed', async () => {
    const hasher = new PasswordHasher();
    const [one, other] = [await hasher.hash('Zu\u0308rich is nice'), await hasher.hash('Z\u00fcrich is nice')];
    assert.notEqual(one, other);
    for (const hash of [one, other]) {
      assert.match(hash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$[^$]{22}\$[^$]{43}$/);
      assert.deepEqual(await hasher.verify('Z\u00fcrich is nice', hash), { right: true, outdated: false });
      assert.equal((await hasher.verify('Zurich is nice', hash)).right, false);
    }
    assert.deepEqual(await hasher.verify('', null), { right: false, outdated: false });
  });

  it('refuses what is more than it gets done, and goes on with the rest', async () => {
    const hasher = new PasswordHasher({ memoryKib: 64, passes: 1, lanes: 1 });
    const all = await Promise.allSettled(Array.from({ length: 70 }, () => hasher.hash('correct horse battery')));
    const refused = all.filter((one) => one.status === 'rejected');
    assert.deepEqual(
      refused.map(({ reason }) => reason.code),
      Array(4).fill('RATE_LIMITED'),
    );
    assert.ok(await hasher.hash('correct horse battery'));
  });
});
