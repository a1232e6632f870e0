export const VOLUME_STATES = ['CREATING', 'READY', 'DELETING', 'DELETED'] as const;
export type VolumeState = (typeof VOLUME_STATES)[number];

export const TEMPLATE_STATES = ['REGISTERING', 'READY', 'ERROR'] as const;
export type TemplateState = (typeof TEMPLATE_STATES)[number];
