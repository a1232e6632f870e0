import { join } from 'node:path';
import { dataFolder } from '../../setup/data-folder.ts';
import { tinyLinuxImage } from '../../setup/tiny-linux.ts';

let image: Promise<string> | undefined;

/**
 * The path of a qcow2 image of a tiny Linux for tests to boot: built once, then kept in the data folder's cache. Its
 * serial line ends its greeting with `ready`, about three seconds after the start under TCG; it obeys the power button.
 */
export function tinyLinux(): Promise<string> {
  image ??= tinyLinuxImage(join(dataFolder, 'cache')).then(({ path }) => path);
  return image;
}
