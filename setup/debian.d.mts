export const REQUIREMENTS: { program: string; package: string }[];
export function systemProblem(
  osRelease: string,
  architecture: string,
  has?: (program: string) => boolean,
): string | null;
export function missingPackages(query?: (names: string[]) => string): string[];
export function installPackages(names: string[]): Promise<void>;
export function refreshPackageLists(): Promise<void>;
