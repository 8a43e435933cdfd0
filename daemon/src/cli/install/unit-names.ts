/** What the units are called, for the system and for users. */
export const socketUnit = 'kms-agent.socket';
export const serviceUnit = 'kms-agent.service';
