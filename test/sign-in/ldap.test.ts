import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { LdapSettings } from '../../src/domain/identity-provider.ts';
import { Egress } from '../../src/egress/egress.ts';
import { type Directory, signInByLdap } from '../../src/sign-in/ldap.ts';
import { ProviderAway, ProviderRefused } from '../../src/sign-in/refused.ts';
import { nobodyKnows } from '../support/resolve.ts';
import { BASE, SEARCHER, startSlapd, type TestDirectory } from '../support/slapd.ts';

const PEOPLE = `ou=people,${BASE}`;
const GROUPS = `ou=groups,${BASE}`;
const person = (uid: string, more: Record<string, string | string[]> = {}) => ({
  [`uid=${uid.replaceAll(/[(),*\\]/g, (c) => `\\${c.charCodeAt(0).toString(16).padStart(2, '0')}`)},${PEOPLE}`]: {
    objectClass: ['inetOrgPerson'],
    uid,
    cn: uid,
    sn: uid,
    userPassword: `password of ${uid}`,
    ...more,
  },
});

describe('sign-in by a directory', () => {
  let directory: TestDirectory;
  let of: Directory;
  before(async () => {
    directory = await startSlapd({
      [BASE]: { objectClass: ['dcObject', 'organization'], dc: 'example', o: 'Example' },
      [PEOPLE]: { objectClass: ['organizationalUnit'], ou: 'people' },
      [GROUPS]: { objectClass: ['organizationalUnit'], ou: 'groups' },
      ...person('anna'),
      ...person('zoë'),
      ...person('o(d)d*\\'),
      ...person('twin'),
      [`cn=other twin,${PEOPLE}`]: {
        objectClass: ['inetOrgPerson'],
        uid: 'twin',
        cn: 'other twin',
        sn: 'twin',
        userPassword: 'password of twin',
      },
      [`cn=without password,${PEOPLE}`]: {
        objectClass: ['inetOrgPerson'],
        uid: 'locked',
        cn: 'without password',
        sn: 'x',
      },
      [`cn=staff,${GROUPS}`]: {
        objectClass: ['groupOfNames'],
        cn: 'staff',
        member: [`uid=anna,${PEOPLE}`, `uid=zoë,${PEOPLE}`],
      },
      [`cn=admins,${GROUPS}`]: { objectClass: ['groupOfNames'], cn: 'admins', member: `uid=anna,${PEOPLE}` },
    });
    of = withSettings({});
  });
  after(() => directory.close());

  function withSettings(more: Partial<LdapSettings>, rest: Partial<Directory> = {}): Directory {
    return {
      settings: {
        url: directory.url,
        startTls: false,
        bindDn: SEARCHER.dn,
        baseDn: PEOPLE,
        userFilter: '(&(objectClass=inetOrgPerson)(uid={name}))',
        subjectAttribute: 'entryUUID',
        nameAttribute: 'uid',
        groupsAttribute: 'memberOf',
        groupBaseDn: null,
        groupFilter: '(&(objectClass=groupOfNames)(member={dn}))',
        caCertificates: null,
        ...more,
      },
      secret: SEARCHER.password,
      egress: new Egress('127.0.0.1'),
      ...rest,
    };
  }

  it('answers with who it is, by what the directory never changes, and his groups', async () => {
    const found = await signInByLdap(of, 'anna', 'password of anna');
    assert.match(found!.subject, /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
    assert.deepEqual(
      { ...found, groups: found!.groups.toSorted() },
      {
        subject: found!.subject,
        name: 'anna',
        groups: [`cn=admins,${GROUPS}`, `cn=staff,${GROUPS}`],
        secondFactor: false,
      },
    );
  });

  it('finds groups where persons do not list theirs', async () => {
    const found = await signInByLdap(withSettings({ groupBaseDn: GROUPS }), 'anna', 'password of anna');
    assert.deepEqual(found!.groups.toSorted(), [`cn=admins,${GROUPS}`, `cn=staff,${GROUPS}`]);
    const zoe = await signInByLdap(withSettings({ groupBaseDn: GROUPS }), 'zoë', 'password of zoë');
    assert.deepEqual(zoe!.groups, [`cn=staff,${GROUPS}`]);
  });

  it('takes any name as a name, and no more', async () => {
    assert.equal((await signInByLdap(of, 'o(d)d*\\', 'password of o(d)d*\\'))?.name, 'o(d)d*\\');
    for (const name of [
      '*',
      'ann*',
      'anna)(uid=*',
      'anna)(|(uid=*',
      '*)(uid=anna',
      'anna))(|(uid=*',
      'a\\6ena',
      '(',
      ')',
      '\\',
    ])
      assert.equal(await signInByLdap(of, name, 'password of anna'), null, name);
    for (const name of ['', 'anna\0', 'anna\n', 'a'.repeat(256)])
      assert.equal(await signInByLdap(of, name, 'password of anna'), null, JSON.stringify(name));
  });

  it('never sends an empty password, with which a bind succeeds as nobody', async () => {
    const before = directory.connections();
    for (const password of ['', '\0', 'password of anna\0', 'x'.repeat(1_025)])
      assert.equal(await signInByLdap(of, 'anna', password), null);
    assert.equal(directory.connections(), before);
  });

  it('asks in the same steps for a wrong name, a wrong password and one that is not unique', async () => {
    for (const [name, password] of [
      ['anna', 'wrong'],
      ['nobody', 'password of anna'],
      ['twin', 'password of twin'],
      ['locked', 'x'],
    ] as const) {
      const before = directory.connections();
      assert.equal(await signInByLdap(of, name, password), null, name);
      assert.equal(directory.connections() - before, 2, name);
    }
  });

  it('lets nobody in who was removed, and knows one by his subject who was renamed', async () => {
    await directory.client.add(`uid=bob,${PEOPLE}`, person('bob')[`uid=bob,${PEOPLE}`]!);
    const before = await signInByLdap(of, 'bob', 'password of bob');
    await directory.client.modifyDN(`uid=bob,${PEOPLE}`, `uid=robert,${PEOPLE}`);
    const after = await signInByLdap(of, 'robert', 'password of bob');
    assert.deepEqual([after!.subject, after!.name], [before!.subject, 'robert']);
    assert.equal(await signInByLdap(of, 'bob', 'password of bob'), null);
    await directory.client.del(`uid=robert,${PEOPLE}`);
    assert.equal(await signInByLdap(of, 'robert', 'password of bob'), null);
  });

  it('speaks by TLS from the start or from the first word on, with a directory that is who it says', async () => {
    const ca = { caCertificates: directory.ca };
    for (const more of [
      { url: directory.secureUrl, ...ca },
      { url: directory.url, startTls: true, ...ca },
      { url: directory.url.replace('127.0.0.1', 'localhost'), startTls: true, ...ca },
    ])
      assert.equal((await signInByLdap(withSettings(more), 'anna', 'password of anna'))?.name, 'anna', more.url);
    for (const more of [{ url: directory.secureUrl }, { url: directory.url, startTls: true }])
      await assert.rejects(signInByLdap(withSettings(more), 'anna', 'password of anna'), ProviderAway, more.url);
  });

  it('says what is wrong with a directory that lets the one who searches not in, whoever is asked for', async () => {
    for (const [wrong, words] of [
      [withSettings({}, { secret: 'wrong' }), /does not let cn=admin,dc=example,dc=com in/],
      [withSettings({}, { secret: null }), /has no password/],
      [withSettings({ baseDn: 'dc=other' }), /refuses what it is asked/],
      [withSettings({}, { egress: new Egress() }), /VIRTGRAPH_EGRESS_ALLOW/],
    ] as const) {
      for (const name of ['anna', 'nobody'])
        await assert.rejects(signInByLdap(wrong, name, 'password of anna'), (error: Error) => {
          assert.ok(error instanceof ProviderRefused, String(error));
          assert.match(error.message, words);
          assert.doesNotMatch(error.message, /password of anna/);
          return true;
        });
    }
    const strange = withSettings({ subjectAttribute: 'employeeNumber' });
    await assert.rejects(signInByLdap(strange, 'anna', 'password of anna'), ProviderRefused);
  });
});

describe('a directory that is away', () => {
  const listening = async (onConnection: (socket: Socket) => void): Promise<Server> => {
    const server = createServer(onConnection).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return server;
  };
  const directoryAt = (server: Server): Directory => ({
    settings: {
      url: `ldap://127.0.0.1:${(server.address() as AddressInfo).port}`,
      startTls: false,
      bindDn: null,
      baseDn: BASE,
      userFilter: '(uid={name})',
      subjectAttribute: 'entryUUID',
      nameAttribute: 'uid',
      groupsAttribute: 'memberOf',
      groupBaseDn: null,
      groupFilter: '(member={dn})',
      caCertificates: null,
    },
    secret: null,
    egress: new Egress('127.0.0.1'),
  });
  const away = (of: Directory) => assert.rejects(signInByLdap(of, 'anna', 'password'), ProviderAway);

  it('is told so, not that the password is wrong', async () => {
    const gone = await listening(() => undefined);
    const of = directoryAt(gone);
    gone.close();
    await once(gone, 'close');
    await away(of);
    const egress = new Egress('', nobodyKnows);
    await away({ ...of, egress, settings: { ...of.settings, url: 'ldap://nothing.invalid' } });
  });

  it('is told so when it hangs up, speaks nonsense or sends without end', async () => {
    for (const behave of [
      (socket: Socket) => socket.destroy(),
      (socket: Socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
      (socket: Socket) => {
        // A message of a gigabyte, as far as it gets.
        socket.on('error', () => undefined);
        socket.write(Buffer.concat([Buffer.from([0x30, 0x84, 0x40, 0, 0, 0]), Buffer.alloc(5 * 2 ** 20)]));
      },
    ]) {
      const server = await listening(behave);
      await away(directoryAt(server));
      server.close();
    }
  });

  it('is given no password over a connection that lost its encryption', async () => {
    let connections = 0;
    const heard: Buffer[] = [];
    const server = await listening((socket) => {
      connections++;
      socket.on('data', (bytes: Buffer) => {
        heard.push(bytes);
        // Success to StartTLS, and then the end before any TLS.
        socket.end(Buffer.from('300c02010178070a010004000400', 'hex'));
      });
    });
    const of = directoryAt(server);
    await away({ ...of, settings: { ...of.settings, startTls: true } });
    assert.equal(connections, 1);
    assert.doesNotMatch(Buffer.concat(heard).toString('latin1'), /password/);
    server.close();
  });
});
